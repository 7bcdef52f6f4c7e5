"""The settings of the query service, checked by pydantic."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retrieval.images.settings import MAX_PIXELS_LIMIT
from serve.schemas.options import MAX_ALPHA

KIB, MIB = 1 << 10, 1 << 20

PhotoFormat = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "HEIF", "AVIF"]


class ServeArgs(BaseModel):
    """Settings of `python -m serve` and of `serve run serve.app:build_app name=value ...`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: str = Field(description="Folder or URI that the pipeline wrote: the one that holds CURRENT.json.")
    # What is taken from strangers.
    max_body_bytes: int = Field(
        default=16 * MIB, ge=1024, le=256 * MIB, description="Largest photo taken, in bytes (413)."
    )
    max_pixels: int = Field(
        default=50_000_000, ge=256, le=MAX_PIXELS_LIMIT, description="Largest photo decoded, width x height (413)."
    )
    formats: Annotated[tuple[PhotoFormat, ...], Field(min_length=1)] = Field(
        default=("JPEG", "PNG", "WEBP"), description="Photo formats that are decoded; others are refused (415)."
    )
    max_scans: int = Field(
        default=100, ge=1, le=10_000, description="Most scans of a progressive JPEG (422); cameras write about 10."
    )
    max_frames: int = Field(
        default=100, ge=1, le=10_000, description="Most frames of an animated PNG or WebP (422); the first is searched."
    )
    photo_timeout_s: float = Field(
        default=5.0, gt=0, le=600, description="Longest that decoding, finding and cutting one photo may take (422)."
    )
    max_batch_photos: int = Field(default=32, ge=1, le=1000, description="Most photos in one request (400).")
    max_batch_bytes: int = Field(
        default=64 * MIB, ge=1024, le=1024 * MIB, description="Largest request of several photos, in bytes (413)."
    )
    # Uploads: they wait in a place of their own.
    max_uploads: int = Field(
        default=256, ge=1, le=100_000, description="Bodies being received at once per replica; more are refused (503)."
    )
    max_upload_bytes: int = Field(
        default=512 * MIB, ge=1024, description="What all of them may hold in memory together (503)."
    )
    upload_timeout_s: float = Field(default=20.0, gt=0, le=3600, description="Longest that a body may take (408).")
    min_upload_rate: int = Field(
        default=4 * KIB, ge=0, description="Bytes a second that a sender must keep up after upload_grace_s (408)."
    )
    upload_grace_s: float = Field(default=2.0, ge=0, le=600, description="Seconds in which a sender may be slower.")
    # What a query may ask for.
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
    rerank: int | None = Field(
        default=None,
        ge=0,
        description="Results verified by geometry where a query does not say how many (places); null: 10 where learned "
        "local features were published (--features), otherwise 0.",
    )
    max_rerank: int = Field(
        default=20, ge=0, le=1000, description="Most results of a query that are verified by geometry (422); 0: none."
    )
    rerank_timeout_s: float = Field(
        default=3.0, ge=0, le=600, description="No result is verified later in a query; the others keep their places."
    )
    max_queue: int = Field(
        default=6, ge=1, le=10_000, description="Queries in progress or waiting per replica; more are refused (503)."
    )
    retry_after_s: int = Field(
        default=1, ge=1, le=3600, description="What a refused client is told to wait, in seconds."
    )
    timeout_s: float = Field(
        default=20.0, gt=0, le=600, description="Longest a query may take once its photo has arrived (504)."
    )
    # What runs the network, and how often it runs.
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
    replica_cpus: float = Field(
        default=1.0,
        gt=0,
        description="CPUs reserved by a replica, and by a part of the index; also their threads, and processes for "
        "photos.",
    )
    replica_gpus: float | None = Field(
        default=None, ge=0, description="GPUs reserved by a replica. Default: 1 if there is one now, else 0."
    )
    photo_processes: int | None = Field(
        default=None, ge=1, le=256, description="Processes that decode photos. Default: replica_cpus, at least 1."
    )
    min_replicas: int = Field(default=1, ge=1, description="Replicas kept when idle; each answers whole queries.")
    max_replicas: int = Field(default=4, ge=1, description="Replicas under load, where the cluster has room.")

    # Where the index is held.
    index_parts: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Processes that the shards of the index are spread over; 1: each replica holds all of them.",
    )
    index_timeout_s: float = Field(
        default=3.0, gt=0, le=600, description="Longest that a part of the index may take to answer (503)."
    )

    # What is served, and how it changes.
    watch_s: float = Field(
        default=2.0, ge=0, le=3600, description="Seconds between two looks at what is published; 0: only when told."
    )
    check_files: bool = Field(
        default=True, description="Compare the files of a model and an index with their seals before they answer."
    )
    cache: str | None = Field(
        default=None, description="Folder for copies from an object store. Default: $RETRIEVAL_CACHE/copies."
    )
    cache_gb: float | None = Field(
        default=None, gt=0, description="Most that those copies may take, in 10^9 bytes. Default: $RETRIEVAL_CACHE_GB."
    )
    cache_local: bool = Field(
        default=False, description="Copy model and index also where they have a path, as on a network file system."
    )
    candidate: str | None = Field(
        default=None, min_length=4, max_length=100, description="A version that a share of the queries is tried on too."
    )
    candidate_share: float = Field(default=0.1, ge=0, le=1, description="That share.")

    @model_validator(mode="after")
    def _consistent(self) -> "ServeArgs":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas={self.min_replicas} is above max_replicas={self.max_replicas}.")
        if self.expand > self.max_expand:
            raise ValueError(f"expand={self.expand} is above max_expand={self.max_expand}.")
        if (self.rerank or 0) > self.max_rerank:
            raise ValueError(f"rerank={self.rerank} is above max_rerank={self.max_rerank}.")
        return self

    @property
    def threads(self) -> int:
        """Threads of the network and of the search in one replica."""
        return max(1, int(self.replica_cpus))

    @property
    def num_photo_processes(self) -> int:
        return self.threads if self.photo_processes is None else self.photo_processes
