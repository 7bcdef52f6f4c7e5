"""The answers to a search: what was seen in the photo, who it may be, and whether it is anybody."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve.schemas.envelope import INDEX, MODEL, ErrorDetail, FromGallery, example, gallery_example

Box = tuple[float, float, float, float]
Point = tuple[float, float]

PHOTO = {"width": 640, "height": 480, "box": [212.0, 96.0, 388.0, 272.0], "face": 0}
RESULT = {
    "rank": 1,
    "image_id": "ada/2.jpg",
    "score": 0.71,
    "probability": 0.998,
    "label": "ada",
    "person": 4,
    "person_name": "Ada",
    "photo": "ada/2.jpg",
    "thumbnail": "/v1/images/ada%2F2.jpg/thumbnail",
}
DECISION = {
    "answer": "match",
    "threshold": 0.42,
    "far": 0.001,
    "promised": True,
    "why": "fewer than 0.001 of the pairs of two different people score 0.437 or more; "
    "the threshold, 0.420, lies between 0.404 and 0.437",
}
SECONDS = {"total": 0.045, "upload": 0.001, "prepare": 0.014, "embed": 0.026, "search": 0.001}


class Quality(BaseModel):
    """How good a face is to compare by."""

    confidence: float | None = Field(default=None, description="That it is a face, 0 to 1; null: not known.")
    size: float = Field(description="Shorter side of its box, pixels of the upright photo.")
    sharpness: float | None = Field(
        default=None, description="0 is one colour; a sharp face has 0.5 and more; null: not measured."
    )
    turn: float | None = Field(
        default=None, description="0 is seen from the front, about 0.5 turned by 45 degrees; null: not known."
    )


class QueryPhoto(BaseModel):
    """What was seen in the photo that was sent."""

    width: int = Field(description="Of the upright photo (EXIF orientation applied), pixels.")
    height: int = Field(description="Of the upright photo, pixels.")
    box: Box = Field(
        description="x1, y1, x2, y2 of the part searched with, pixels of the upright photo; a face's may reach outside."
    )
    crop: str | None = Field(default=None, description="That part as stored, as a data: URL; only if asked for.")
    face: int | None = Field(
        default=None, description="The face's number, 0 is the largest; null: none was looked for."
    )
    points: list[Point] | None = Field(default=None, description="Eyes, nose, corners of the mouth, pixels.")
    quality: Quality | None = Field(default=None, description="How good the face is to compare by.")


class Result(BaseModel):
    """One image of the gallery."""

    rank: int = Field(description="From 1.")
    image_id: str = Field(description="Stays the same when the index is made again.")
    score: float = Field(
        description="Cosine similarity to the query's embedding, or to the expanded one, -1 to 1; larger is closer."
    )
    probability: float | None = Field(
        default=None, description="That it shows the same, where half of all pairs do; null: not calibrated."
    )
    label: str | None = Field(default=None, description="Identity, or null where the source gives none.")
    person: int | None = Field(default=None, description="The group that it is in; null: in none, or none were made.")
    person_name: str | None = Field(default=None, description="What that group was named.")
    split: str | None = Field(default=None, description="Part of the data set.")
    added: datetime | None = Field(default=None, description="When it was added to the running service; null: sealed.")
    photo: str = Field(default="", description="The photo that it is of: image_id, without a face's number.")
    face: int | None = Field(default=None, description="Its number in a photo of several faces.")
    thumbnail: str = Field(description="Address of the stored crop, on this server.")
    inliers: int | None = Field(default=None, description="Points that one geometry explains; null: not re-ranked.")
    matches: list[tuple[float, float, float, float]] | None = Field(
        default=None, description="Of those points, x, y in the query's crop and x, y in this image's."
    )


class Seconds(BaseModel):
    """Where the time went."""

    total: float = Field(description="From the first byte of the request to the answer.")
    upload: float = Field(default=0.0, description="Until the photo had arrived.")
    prepare: float = Field(description="Decode, find the face, crop.")
    embed: float = Field(description="The network, including the wait for its batch.")
    search: float = Field(description="The index; with expansion, both searches.")
    rerank: float = Field(default=0.0, description="Geometry.")


class Expansion(BaseModel):
    """What the query took on before it was asked again."""

    num: int = Field(description="Neighbours taken on: as many as asked for, or as there are.")
    alpha: float = Field(description="The power of their scores that they were weighted by.")


class Decision(BaseModel):
    """Whether the first result is the one looked for."""

    answer: Literal["match", "nobody", "cannot tell"] = Field(
        description="nobody: nothing in the gallery shows the same. cannot tell: the scores do not say."
    )
    threshold: float | None = Field(default=None, description="The score that it was decided by; null: none is known.")
    far: float = Field(description="The false-accept rate asked for.")
    promised: bool = Field(
        description="Whether the threshold was measured to keep that rate, and is not its publisher's."
    )
    why: str = Field(description="A sentence.")


class FaceAnswer(BaseModel):
    """One face of a photo, and whom it resembles."""

    query: QueryPhoto = Field(description="The face.")
    results: list[Result] = Field(description="Best first; empty where the face is not usable.")
    decision: Decision = Field(description="Whether the first of them is the one.")
    error: ErrorDetail | None = Field(default=None, description="Why this face was not searched for.")


class SearchAnswer(FromGallery):
    """POST /v1/search."""

    model_config = ConfigDict(
        json_schema_extra=gallery_example(
            query=PHOTO, results=[RESULT], decision=DECISION, searched=4345, seconds=SECONDS
        )
    )

    query: QueryPhoto | None = Field(default=None, description="What was seen in the photo; null without one.")
    results: list[Result] = Field(description="Best first.")
    decision: Decision = Field(description="Whether the first of them is the one.")
    faces: list[FaceAnswer] | None = Field(
        default=None, description="With face=all: each face of the photo; `results` are then the best one's."
    )
    searched: int = Field(description="Images that could answer: those the filter leaves.")
    expansion: Expansion | None = Field(default=None, description="How the query was expanded; null if it was not.")
    seconds: Seconds = Field(description="Where the time went.")


class BatchItem(BaseModel):
    """What became of one photo of a batch: `answer` or `error`."""

    name: str = Field(description="The file name that was sent, or the photo's place, from 0.")
    status: int = Field(description="The HTTP status that it would have had alone.")
    answer: SearchAnswer | None = Field(default=None, description="With status 200.")
    error: ErrorDetail | None = Field(default=None, description="With any other.")


class BatchAnswer(FromGallery):
    """POST /v1/search/batch."""

    model_config = ConfigDict(
        json_schema_extra=gallery_example(
            items=[{"name": "1.jpg", "status": 422, "error": {"reason": "no-face", "message": "No face was found."}}],
            seconds=SECONDS,
        )
    )

    items: list[BatchItem] = Field(description="One for each photo, in the order sent.")
    seconds: Seconds = Field(description="Of the whole batch.")


class Answer(BaseModel):
    """POST /search, the address from before /v1."""

    model_config = ConfigDict(
        json_schema_extra=example(
            query=PHOTO, results=[RESULT], expansion=None, model=MODEL, index=INDEX, seconds=SECONDS
        )
    )

    query: QueryPhoto = Field(description="What was seen in the photo.")
    results: list[Result] = Field(description="Best first.")
    expansion: Expansion | None = Field(description="How the query was expanded; null if it was not.")
    model: str = Field(description="Fingerprint of the model bundle.")
    index: str = Field(description="Fingerprint of the index.")
    seconds: Seconds = Field(description="Where the time went.")
