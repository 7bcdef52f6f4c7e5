"""What a search may be told: how many results, which part of the photo, which images may answer."""

import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from serve.schemas.envelope import RequestBody, example

MAX_ALPHA = 20.0
"""A neighbour of score 0.9 then counts an eighth of one of score 1: more alpha would count copies only."""
MAX_K = 10_000
"""No service takes more, whatever its own limit (`max_k`)."""
MAX_LISTED = 1000
"""Names, folders or ids in one list of a filter."""
MAX_IDS = 32
"""Images that one query may be put together of."""
MAX_DIM = 8192
MAX_WORDS = 1000
"""Characters of a text; no tower takes more tokens than a few hundred."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Listed = Annotated[list[Text], Field(min_length=1, max_length=MAX_LISTED)]


def _plain(text: str) -> str:
    if any(unicodedata.category(one) == "Cc" for one in text):
        raise ValueError("it has control characters (a tab, a new line, ...). Write it on one line.")
    if not text.strip():
        raise ValueError("it says nothing. Write a word.")
    return text


Words = Annotated[str, StringConstraints(min_length=1, max_length=MAX_WORDS), AfterValidator(_plain)]
Face = Literal["best", "all"] | Annotated[int, Field(ge=0, le=10_000)]
"""best: the one a portrait is of. all: each face is searched for. A number: as `POST /v1/faces` counts, from 0."""
BoxOfPhoto = tuple[float, float, float, float]


class Filter(RequestBody):
    """Which images may answer. All that is given must hold; of a list, any one."""

    model_config = ConfigDict(json_schema_extra=example(label=["ada", "grace"], folder=["2024/summer"]))

    label: Listed | None = Field(default=None, description="Identities.")
    split: Listed | None = Field(default=None, description="Parts of the data set, as in train, val, test.")
    person: list[int] | None = Field(
        default=None, min_length=1, max_length=MAX_LISTED, description="Numbers of people, as `GET /v1/people` says."
    )
    folder: Listed | None = Field(
        default=None, description="Starts of image_id, up to a '/': 'a/b' takes a/b/1.jpg and not a/bc/1.jpg."
    )
    attributes: dict[Text, Literal[-1, 0, 1]] | None = Field(
        default=None, min_length=1, max_length=64, description="Name -> 1 it is so, -1 it is not, 0 nobody said."
    )
    added_after: datetime | None = Field(
        default=None, description="Added to the running service at this time or later; what was sealed has no time."
    )
    added_before: datetime | None = Field(default=None, description="Added to the running service before this time.")
    image_id: Listed | None = Field(default=None, description="These images only.")

    @model_validator(mode="after")
    def _times_have_a_zone(self) -> "Filter":
        for name in ("added_after", "added_before"):
            time = getattr(self, name)
            if time is not None and time.tzinfo is None:
                raise ValueError(f"{name} has no time zone: write 2026-03-01T00:00:00Z.")
        return self


class WeightedImage(RequestBody):
    """An image of the gallery as a part of a query."""

    model_config = ConfigDict(json_schema_extra=example(image_id="ada/1.jpg", weight=1.0))

    image_id: Text = Field(description="Of the gallery.")
    weight: float = Field(default=1.0, ge=-100, le=100, description="Negative: away from this image.")


class SearchOptions(RequestBody):
    """Everything that a search may be told. Without a photo, exactly one of image_id, image_ids, embedding and
    text."""

    model_config = ConfigDict(
        json_schema_extra=example(
            k=20,
            min_probability=0.5,
            image_ids=[{"image_id": "ada/1.jpg"}, {"image_id": "grace/2.jpg", "weight": -0.5}],
        )
    )

    k: int = Field(default=10, ge=1, le=MAX_K, description="Most results; fewer where there are no more.")
    min_score: float | None = Field(default=None, ge=-1, le=1, description="No result scores lower.")
    min_probability: float | None = Field(
        default=None, ge=0, le=1, description="No result is less probable to show the same; needs a calibrated model."
    )
    far: float = Field(
        default=1e-3, gt=0, lt=1, description="The false-accept rate of the decision: one that was looked at."
    )
    filter: Filter | None = Field(default=None, description="Which images may answer.")
    expand: int | None = Field(
        default=None, ge=0, description="Neighbours the query takes on before it is asked again; null: as the service."
    )
    alpha: float | None = Field(
        default=None, ge=0, le=MAX_ALPHA, description="A neighbour's weight is its score to this; null: as the service."
    )
    rerank: int | None = Field(
        default=None, ge=0, le=1000, description="How many of the first are verified (places); null: as the service."
    )
    evidence: bool = Field(default=False, description="Give the matched points of those re-ranked.")
    box: BoxOfPhoto | None = Field(default=None, description="x1, y1, x2, y2 of the upright photo, pixels (places).")
    face: Face = Field(default="best", description="best, all, or a face's number as POST /v1/faces counts.")
    crop: bool = Field(default=False, description="Give the part searched with, as a data: URL.")
    image_id: Text | None = Field(default=None, description="Search with this image of the gallery.")
    image_ids: list[WeightedImage] | None = Field(
        default=None, min_length=1, max_length=MAX_IDS, description="Search with the weighted sum of these."
    )
    embedding: list[float] | None = Field(
        default=None, min_length=1, max_length=MAX_DIM, description="Search with this vector; it is made one long."
    )
    text: Words | None = Field(
        default=None, description="Search with these words, where the model describes words too (features.text)."
    )

    @property
    def num_queries(self) -> int:
        """How many of the ways to ask without a photo are used."""
        return sum(one is not None for one in (self.image_id, self.image_ids, self.embedding, self.text))
