"""What all bodies share: how a refusal looks, and which gallery an answer comes from."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MODEL = "3f1c9a52d7e04b66"
INDEX = "a07be4418c2d95f3"
VERSION = "9d2f61c07ab4"


def example(**values: Any) -> dict[str, Any]:
    """The `json_schema_extra` of a body: one example of it."""
    return {"examples": [values]}


def gallery_example(**values: Any) -> dict[str, Any]:
    """The same for a body that names its gallery."""
    return example(**values, model=MODEL, index=INDEX, version=VERSION, live=12)


class RequestBody(BaseModel):
    """What a client sends as JSON: a name that nobody knows is refused, not passed over."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class FromGallery(BaseModel):
    """Says which gallery an answer comes from, so that two answers can be compared."""

    model: str = Field(description="Fingerprint of the model bundle.")
    index: str = Field(description="Fingerprint of the index.")
    version: str = Field(
        description="First 12 digits of the SHA-256 of the fingerprints of collection, model and index."
    )
    live: int = Field(ge=0, description="Number of the last change to the gallery that this answer knows; 0: none.")


class ErrorDetail(BaseModel):
    """Why there is no answer: `reason` for programs, `message` for people."""

    reason: str = Field(description="One of a fixed list, in docs/reference/http.md.")
    message: str = Field(description="A sentence: what was wrong, and how to go on.")


class ErrorBody(BaseModel):
    """The body of every answer that is no success."""

    model_config = ConfigDict(
        json_schema_extra=example(error={"reason": "no-face", "message": "No face was found in the photo."})
    )

    error: ErrorDetail = Field(description="The refusal.")
