"""What the service says of itself: what is loaded, what it can do, what it refuses, whether it is well."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve.schemas.envelope import INDEX, MODEL, VERSION, example

LIMITS = {
    "max_body_bytes": 16777216,
    "max_pixels": 50000000,
    "max_k": 100,
    "max_expand": 100,
    "max_queue": 6,
    "timeout_s": 20.0,
}
OLD_MODEL = {"fingerprint": MODEL, "embedding_dim": 512, "device": "cpu", "crop": "aligned"}
LOADED_MODEL = {
    "fingerprint": MODEL,
    "name": "mobilenet_v2",
    "dim": 512,
    "engine": "onnxruntime",
    "format": "fp32",
    "licence": None,
    "device": "cpu",
    "crop": "aligned",
}
LOADED_INDEX = {
    "fingerprint": INDEX,
    "factory": "Flat",
    "num_images": 4345,
    "num_identities": 158,
    "dim": 512,
    "vectors": "index",
}


class Limits(BaseModel):
    """What is refused."""

    max_body_bytes: int = Field(description="Largest body, in bytes.")
    max_pixels: int = Field(description="Largest photo decoded, width x height.")
    max_k: int = Field(description="Most results.")
    max_expand: int = Field(description="Most neighbours a query may take on.")
    max_queue: int = Field(description="Searches in progress or waiting in one replica.")
    timeout_s: float = Field(description="Longest a search may take.")


class AllLimits(Limits):
    """What is refused, with what came with /v1."""

    max_batch_photos: int = Field(description="Most photos in one request.")
    max_rerank: int = Field(description="Most results verified by geometry; 0: none are.")


class Defaults(BaseModel):
    """What a query gets that does not say."""

    expand: int = Field(description="Neighbours taken on.")
    alpha: float = Field(description="The power of their scores.")
    rerank: int = Field(default=0, description="Results verified by geometry, where a query is one photo.")


class ModelInfo(BaseModel):
    """The model that is loaded."""

    fingerprint: str = Field(description="Of the bundle.")
    embedding_dim: int = Field(description="Length of an embedding.")
    device: str = Field(description="Where photos are embedded.")
    crop: str = Field(
        description="How a query photo is cut: face, aligned (its best face), none or fit (all of it; fit takes a box)."
    )


class LoadedModel(BaseModel):
    """The model that is loaded, as GET /v1/info says."""

    fingerprint: str = Field(description="Of the bundle.")
    name: str | None = Field(default=None, description="Of the network.")
    dim: int = Field(description="Length of an embedding.")
    engine: str | None = Field(default=None, description="What runs it: torch or onnxruntime.")
    format: str | None = Field(default=None, description="Number format of the network, as its engine names it.")
    licence: str | None = Field(default=None, description="Of the weights, where the bundle says.")
    device: str = Field(description="Where photos are embedded.")
    crop: str = Field(description="How a query photo is cut: face, aligned, none or fit.")


class IndexInfo(BaseModel):
    """The index that is loaded."""

    fingerprint: str = Field(description="Of the index.")
    factory: str = Field(description="How it was made, as FAISS writes it.")
    num_images: int = Field(description="Images in it.")
    num_identities: int = Field(description="Labels among them.")
    dim: int = Field(description="Length of an embedding.")
    vectors: Literal["index", "embeddings", "none"] = Field(
        description="Where expansion reads the neighbours' embeddings; none: this index cannot expand queries."
    )


class Info(BaseModel):
    """GET /info, the address from before /v1."""

    model_config = ConfigDict(
        json_schema_extra=example(
            model=OLD_MODEL,
            index=LOADED_INDEX,
            collection="77c1",
            limits=LIMITS,
            defaults={"expand": 0, "alpha": 3.0, "rerank": 0},
        )
    )

    model: ModelInfo = Field(description="The model.")
    index: IndexInfo = Field(description="The index.")
    collection: str = Field(description="Fingerprint of the collection that the thumbnails come from.")
    limits: Limits = Field(description="What is refused.")
    defaults: Defaults = Field(description="What a query gets that does not say.")


class KnownRate(BaseModel):
    """What is promised at one false-accept rate."""

    far: float = Field(description="Of pairs of two different people, the share that scores the threshold or more.")
    threshold: float | None = Field(default=None, description="That score; null: nothing is promised.")
    true_accept: float | None = Field(default=None, description="Of pairs of one person, the share that does.")
    why: str = Field(default="", description="What is missing, where nothing is promised.")


class CalibrationInfo(BaseModel):
    """What the scores mean."""

    rates: list[KnownRate] = Field(description="The rates that `far` may be.")
    people: int = Field(description="How many it was measured on.")
    why: str = Field(default="", description="Why there are no probabilities.")


class Features(BaseModel):
    """What this service can do with this gallery."""

    rerank: bool = Field(description="Verify results by geometry.")
    faces: bool = Field(description="Look for faces.")
    box: bool = Field(description="Take a part of a photo.")
    expand: bool = Field(description="Expand queries.")
    add: bool = Field(description="Take new photos.")
    people: bool = Field(description="Knows groups of people.")
    attributes: list[str] = Field(description="Names that a filter may ask for.")
    text: bool = Field(default=False, description="Search with words.")


class RefusedVersion(BaseModel):
    """A version that was published and does not answer."""

    version: str = Field(description="Its name; empty if not even that could be read.")
    why: str = Field(description="Why it was refused, in words.")
    at: datetime = Field(description="When.")


class CandidateInfo(BaseModel):
    """A version that a share of the queries is tried on too."""

    version: str | None = Field(description="Its name; null while it is not loaded.")
    share: float = Field(description="Of the queries that are compared.")
    why: str = Field(default="", description="Why it is not compared.")


class ServiceInfo(BaseModel):
    """GET /v1/info."""

    model_config = ConfigDict(
        json_schema_extra=example(
            model=LOADED_MODEL,
            index=LOADED_INDEX,
            collection="77c1",
            version=VERSION,
            live=12,
            calibration=None,
            features={
                "rerank": False,
                "faces": True,
                "box": False,
                "expand": True,
                "add": True,
                "people": True,
                "attributes": [],
                "text": False,
            },
            limits={**LIMITS, "max_batch_photos": 32, "max_rerank": 0},
            defaults={"expand": 0, "alpha": 3.0, "rerank": 0},
            labels=158,
            started="2026-03-01T12:00:00Z",
            replica="search#ab12",
        )
    )

    model: LoadedModel = Field(description="The model.")
    index: IndexInfo = Field(description="The index.")
    index_parts: int = Field(
        default=1, ge=1, description="Processes that the index is spread over; 1: each replica holds all of it."
    )
    collection: str = Field(description="Fingerprint of the collection.")
    version: str = Field(description="First 12 digits of the SHA-256 of the three fingerprints.")
    live: int = Field(ge=0, description="Number of the last change to the gallery; 0: none.")
    calibration: CalibrationInfo | None = Field(default=None, description="What the scores mean; null: not measured.")
    features: Features = Field(description="What can be asked for.")
    limits: AllLimits = Field(description="What is refused.")
    defaults: Defaults = Field(description="What a query gets that does not say.")
    labels: int = Field(description="Identities in the gallery.")
    started: datetime = Field(description="When this replica loaded what it has.")
    replica: str = Field(description="Which replica answered.")
    refused: RefusedVersion | None = Field(
        default=None, description="What was published last, if it was refused: an older version answers on."
    )
    candidate: CandidateInfo | None = Field(default=None, description="What is tried beside it.")


class Health(BaseModel):
    """GET /health and GET /livez."""

    model_config = ConfigDict(json_schema_extra=example(status="ok"))

    status: Literal["ok"] = Field(default="ok", description="It answers.")


class Part(BaseModel):
    """One part of the service."""

    ok: bool = Field(description="Whether it does its work.")
    why: str = Field(default="", description="What is wrong.")


class Ready(BaseModel):
    """GET /readyz, with 200 or 503."""

    model_config = ConfigDict(json_schema_extra=example(status="ok", parts={"photos": {"ok": True, "why": ""}}))

    status: Literal["ok", "failed"] = Field(description="ok: every part is.")
    parts: dict[str, Part] = Field(description="photos, model, index, gallery.")
