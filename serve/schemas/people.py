"""Groups of photos of one person, the corrections to them, and photos that are there twice."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from serve.schemas.envelope import FromGallery, RequestBody, example, gallery_example
from serve.schemas.images import IMAGE, ImageInfo
from serve.schemas.options import Text

PERSON = {
    "person": 4,
    "name": "Ada",
    "photos": 7,
    "cover": ["/v1/images/ada%2F2.jpg/thumbnail"],
    "image_ids": ["ada/2.jpg"],
}


class Person(BaseModel):
    """A group of photos of one person."""

    person: int = Field(description="Its number, from 1; kept when the groups are made again.")
    name: str | None = Field(default=None, description="What somebody named it.")
    photos: int = Field(description="How many images it has.")
    cover: list[str] = Field(description="Addresses of the stored crops of up to four of them.")
    image_ids: list[str] = Field(description="Those four.")


class PeoplePage(FromGallery):
    """GET /v1/people."""

    model_config = ConfigDict(json_schema_extra=gallery_example(people=[PERSON], next=None, total=1))

    people: list[Person] = Field(description="The largest first.")
    next: str | None = Field(default=None, description="What to give as `after` for the next page; null: the last.")
    total: int = Field(description="How many there are.")


class PersonPhotos(FromGallery):
    """GET /v1/people/{id}."""

    model_config = ConfigDict(
        json_schema_extra=gallery_example(person=4, name="Ada", photos=7, images=[IMAGE], next="ada/2.jpg")
    )

    person: int = Field(description="Its number.")
    name: str | None = Field(default=None, description="What somebody named it.")
    photos: int = Field(description="How many images it has.")
    images: list[ImageInfo] = Field(description="By image_id.")
    next: str | None = Field(default=None, description="What to give as `after` for the next page; null: the last.")


class MergeRequest(RequestBody):
    """POST /v1/people/{id}/merge."""

    model_config = ConfigDict(json_schema_extra=example(into=4))

    into: int = Field(ge=1, description="The person who takes all photos over, with number and name.")


class NameRequest(RequestBody):
    """POST /v1/people/{id}/name."""

    model_config = ConfigDict(json_schema_extra=example(name="Ada"))

    name: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)] | None = Field(
        description="null takes the name away."
    )


class SplitRequest(RequestBody):
    """POST /v1/people/{id}/split."""

    model_config = ConfigDict(json_schema_extra=example(image_ids=["grace/9.jpg"]))

    image_ids: list[Text] = Field(
        min_length=1, max_length=10_000, description="Images of this person who are somebody else: one new person."
    )


class PeopleAfter(FromGallery):
    """The people who were changed, as they are now."""

    model_config = ConfigDict(json_schema_extra=gallery_example(people=[PERSON]))

    people: list[Person] = Field(description="The one asked about first; a merged one is gone.")


class DuplicateGroup(BaseModel):
    """One picture that is there more than once."""

    image_ids: list[str] = Field(description="The first is the one that the others repeat.")
    how: str = Field(description="same file (byte for byte) or same picture.")
    likeness: float = Field(description="Of the fine detail, 1 for the same file; the least of the group.")
    thumbnails: list[str | None] = Field(
        description="Addresses of the stored crops; null where it is not in the index, as copies byte for byte are not."
    )


class DuplicatesPage(FromGallery):
    """GET /v1/duplicates."""

    model_config = ConfigDict(
        json_schema_extra=gallery_example(
            groups=[
                {
                    "image_ids": ["a.jpg", "b.jpg"],
                    "how": "same file",
                    "likeness": 1.0,
                    "thumbnails": ["/v1/images/a.jpg/thumbnail", None],
                }
            ],
            next=None,
            total=1,
        )
    )

    groups: list[DuplicateGroup] = Field(description="By the first image_id.")
    next: str | None = Field(default=None, description="What to give as `after` for the next page; null: the last.")
    total: int = Field(description="How many groups there are.")
