"""The settings of the query service, checked by pydantic."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retrieval.images.settings import MAX_PIXELS_LIMIT
from serve.schemas.options import MAX_ALPHA

MIB = 1 << 20


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
