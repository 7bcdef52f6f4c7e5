"""What goes in and out of the query service: its settings, its answers, its refusals. All checked by pydantic."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retrieval.images.settings import MAX_PIXELS_LIMIT

MIB = 1 << 20
MAX_ALPHA = 20.0
"""A neighbour of score 0.9 then counts an eighth of one of score 1: more alpha would count copies only."""


class ServeArgs(BaseModel):
    """Settings of `serve run serve.app:build_app name=value ...`. Host and port are Ray Serve's own settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: str = Field(description="Folder or URI that the pipeline wrote: the one that holds CURRENT.json.")
    max_body_bytes: int = Field(
        default=16 * MIB, ge=1024, le=256 * MIB, description="Largest photo taken, in bytes (413)."
    )
    max_pixels: int = Field(
        default=50_000_000, ge=256, le=MAX_PIXELS_LIMIT, description="Largest photo decoded, width x height (413)."
    )
    max_k: int = Field(default=100, ge=1, le=10_000, description="Most results a query may ask for (422).")
    expand: int = Field(
        default=0, ge=0, description="Neighbours that a query takes on before it is asked again; 0: no expansion."
    )
    alpha: float = Field(
        default=3.0, ge=0, le=MAX_ALPHA, description="Expansion: a neighbour's weight is its score to this power."
    )
    max_expand: int = Field(
        default=100, ge=0, le=1000, description="Most neighbours a query may take on (422); 0: no expansion at all."
    )
    max_queue: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="Searches in progress or waiting per ingress replica; more are refused (503).",
    )
    retry_after_s: int = Field(
        default=1, ge=1, le=3600, description="What a refused client is told to wait, in seconds."
    )
    timeout_s: float = Field(
        default=20.0, gt=0, le=600, description="Longest a search may take, upload included (504)."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where photos are embedded.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Number format of the network; auto is bf16 where the hardware has it and embeddings stay.",
    )
    engine: Literal["auto", "torch", "onnxruntime"] = Field(
        default="auto",
        description="What runs a network trained here; auto is onnxruntime on a CPU, PyTorch on a GPU.",
    )
    max_batch: int = Field(default=16, ge=1, le=1024, description="Most photos embedded in one forward pass.")
    embedder_cpus: float = Field(
        default=1.0, gt=0, description="CPUs reserved by an Embedder replica; also its thread count."
    )
    embedder_gpus: float | None = Field(
        default=None, ge=0, description="GPUs reserved by an Embedder replica. Default: 1 if there is one now, else 0."
    )
    min_embedders: int = Field(default=1, ge=1, description="Embedder replicas kept when idle.")
    max_embedders: int = Field(default=4, ge=1, description="Embedder replicas under load, where the cluster has room.")
    index_replicas: int = Field(default=1, ge=1, description="Replicas of the index; each holds all shards.")

    @model_validator(mode="after")
    def _consistent(self) -> "ServeArgs":
        if self.min_embedders > self.max_embedders:
            raise ValueError(f"min_embedders={self.min_embedders} is above max_embedders={self.max_embedders}.")
        if self.expand > self.max_expand:
            raise ValueError(f"expand={self.expand} is above max_expand={self.max_expand}.")
        return self


class QueryPhoto(BaseModel):
    """What was seen in the photo that was sent."""

    width: int = Field(description="Of the upright photo (EXIF orientation applied), pixels.")
    height: int
    box: tuple[float, float, float, float] = Field(
        description="x1, y1, x2, y2 of the part searched with, pixels of the upright photo; a face's may reach outside."
    )
    crop: str | None = Field(default=None, description="That part as stored, as a data: URL; only with ?crop=true.")


class Result(BaseModel):
    """One image of the gallery."""

    rank: int = Field(description="From 1.")
    image_id: str
    score: float = Field(
        description="Cosine similarity to the query's embedding, or to the expanded one, -1 to 1; larger is closer."
    )
    label: str | None = Field(description="Identity, or null where the source gives none.")
    thumbnail: str = Field(description="Address of the stored crop, on this server.")


class Seconds(BaseModel):
    """Where the time went."""

    total: float = Field(description="From the first byte of the request to the answer.")
    prepare: float = Field(description="Decode, find the face, crop.")
    embed: float = Field(description="The network, including the wait for its batch.")
    search: float = Field(description="The index; with expansion, both searches.")


class Expansion(BaseModel):
    """What the query took on before it was asked again."""

    num: int = Field(description="Neighbours taken on: as many as asked for, or as there are.")
    alpha: float = Field(description="The power of their scores that they were weighted by.")


class Answer(BaseModel):
    """POST /search."""

    query: QueryPhoto
    results: list[Result]
    expansion: Expansion | None = Field(description="How the query was expanded; null if it was not.")
    model: str = Field(description="Fingerprint of the model bundle.")
    index: str = Field(description="Fingerprint of the index.")
    seconds: Seconds


class Limits(BaseModel):
    """What is refused."""

    max_body_bytes: int
    max_pixels: int
    max_k: int
    max_expand: int
    max_queue: int
    timeout_s: float


class Defaults(BaseModel):
    """What a query gets that does not say."""

    expand: int
    alpha: float


class ModelInfo(BaseModel):
    """What the Embedder has loaded."""

    fingerprint: str
    embedding_dim: int
    device: str
    crop: str = Field(
        description="How a query photo is cut: face, aligned (its best face), none or fit (all of it; fit takes a box)."
    )


class IndexInfo(BaseModel):
    """What IndexShard has loaded."""

    fingerprint: str
    factory: str
    num_images: int
    num_identities: int
    dim: int
    vectors: Literal["index", "embeddings", "none"] = Field(
        description="Where expansion reads the neighbours' embeddings; none: this index cannot expand queries."
    )


class Info(BaseModel):
    """GET /info."""

    model: ModelInfo
    index: IndexInfo
    collection: str = Field(description="Fingerprint of the collection that the thumbnails come from.")
    limits: Limits
    defaults: Defaults


class Health(BaseModel):
    """GET /health."""

    status: Literal["ok"] = "ok"


class ErrorDetail(BaseModel):
    """Why there is no answer: `reason` for programs, `message` for people."""

    reason: str
    message: str


class ErrorBody(BaseModel):
    """The body of every answer that is not 200."""

    error: ErrorDetail
