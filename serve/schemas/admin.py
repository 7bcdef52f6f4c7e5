"""What the service is told by those who run it."""

from pydantic import BaseModel, ConfigDict, Field

from serve.schemas.envelope import VERSION, RequestBody, example


class ReloadRequest(RequestBody):
    """POST /v1/admin/reload."""

    model_config = ConfigDict(json_schema_extra=example(version="previous"))

    version: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="12 digits of a version published before, or previous; null: what is published now.",
    )


class ReloadAnswer(BaseModel):
    """What is loaded now."""

    model_config = ConfigDict(json_schema_extra=example(version=VERSION, swapped=True, why=""))

    version: str = Field(description="The one that answers.")
    swapped: bool = Field(description="Whether that is another one than before.")
    why: str = Field(default="", description="Why not.")


class SnapshotAnswer(BaseModel):
    """POST /v1/admin/snapshot."""

    model_config = ConfigDict(
        json_schema_extra=example(name="2026-03-01T12-00-00Z", path="live/snapshots/x", files=2, bytes=409600)
    )

    name: str = Field(description="Of the snapshot.")
    path: str = Field(description="Where it is, below the workspace.")
    files: int = Field(description="How many files it has.")
    bytes: int = Field(description="How large they are together.")
