"""The answers that need a photo and no gallery: the faces in it, and whether two photos show the same."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve.schemas.envelope import MODEL, VERSION, example
from serve.schemas.search import PHOTO, Box, Point, Quality, QueryPhoto


class FoundFace(BaseModel):
    """A face of a photo."""

    face: int = Field(description="Its number: 0 is the largest.")
    box: Box = Field(description="x1, y1, x2, y2 of what would be searched with, pixels of the upright photo.")
    points: list[Point] | None = Field(default=None, description="Eyes, nose, corners of the mouth, pixels.")
    quality: Quality | None = Field(default=None, description="How good it is to compare by.")
    usable: bool = Field(description="Whether a search takes it.")
    reason: str | None = Field(default=None, description="Why not, as the refusal of a search would say.")


class FacesAnswer(BaseModel):
    """POST /v1/faces."""

    model_config = ConfigDict(
        json_schema_extra=example(
            width=640,
            height=480,
            faces=[{"face": 0, "box": PHOTO["box"], "usable": True}],
            model=MODEL,
            version=VERSION,
        )
    )

    width: int = Field(description="Of the upright photo, pixels.")
    height: int = Field(description="Of the upright photo, pixels.")
    faces: list[FoundFace] = Field(description="The largest first; empty where there is none.")
    model: str = Field(description="Fingerprint of the model bundle, whose preparation it is.")
    version: str = Field(description="As in every answer.")


class VerifyAnswer(BaseModel):
    """POST /v1/verify."""

    model_config = ConfigDict(
        json_schema_extra=example(
            answer="same",
            why="fewer than 0.001 of the pairs of two different people score 0.437 or more; "
            "the threshold, 0.420, lies between 0.404 and 0.437",
            far=0.001,
            score=0.62,
            probability=0.99,
            threshold=0.42,
            promised=True,
            first=PHOTO,
            second=PHOTO,
            model=MODEL,
            version=VERSION,
        )
    )

    answer: Literal["same", "different", "cannot tell"] = Field(description="Whether both photos show the same.")
    why: str = Field(description="A sentence.")
    far: float = Field(description="The false-accept rate asked for.")
    score: float | None = Field(default=None, description="Cosine similarity; null where a photo is not usable.")
    probability: float | None = Field(default=None, description="That they show the same, where half of pairs do.")
    threshold: float | None = Field(default=None, description="The score that it was decided by.")
    promised: bool = Field(description="Whether the threshold was measured to keep that rate.")
    first: QueryPhoto | None = Field(default=None, description="What was seen in the first; null: nothing usable.")
    second: QueryPhoto | None = Field(default=None, description="What was seen in the second.")
    model: str = Field(description="Fingerprint of the model bundle.")
    version: str = Field(description="As in every answer.")
