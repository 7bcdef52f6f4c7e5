"""Images of the gallery: what is known of one, how they are added, and what a deletion leaves."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve.schemas.envelope import ErrorDetail, FromGallery, RequestBody, example, gallery_example
from serve.schemas.options import Text

IMAGE = {
    "image_id": "ada/2.jpg",
    "label": "ada",
    "where": "sealed",
    "photo": "ada/2.jpg",
    "width": 218,
    "height": 218,
    "thumbnail": "/v1/images/ada%2F2.jpg/thumbnail",
    "original": False,
}


class ImageInfo(BaseModel):
    """An image of the gallery."""

    model_config = ConfigDict(json_schema_extra=example(**IMAGE))

    image_id: str = Field(description="Its name; stays the same when the index is made again.")
    label: str | None = Field(default=None, description="Identity, or null.")
    split: str | None = Field(default=None, description="Part of the data set.")
    person: int | None = Field(default=None, description="The group that it is in.")
    person_name: str | None = Field(default=None, description="What that group was named.")
    attributes: dict[str, int] | None = Field(default=None, description="Name -> 1, -1 or 0 (nobody said).")
    added: datetime | None = Field(default=None, description="When it was added to the running service; null: sealed.")
    where: Literal["sealed", "live"] = Field(description="In the sealed index, or among the changes since.")
    photo: str = Field(description="The photo that it is of.")
    face: int | None = Field(default=None, description="Its number in a photo of several faces.")
    width: int = Field(description="Of the stored crop, pixels.")
    height: int = Field(description="Of the stored crop, pixels.")
    thumbnail: str = Field(description="Address of the stored crop, on this server.")
    original: bool = Field(description="Whether the photo is kept as it was sent.")


class ImagePage(FromGallery):
    """GET /v1/images."""

    model_config = ConfigDict(json_schema_extra=gallery_example(images=[IMAGE], next="ada/2.jpg"))

    images: list[ImageInfo] = Field(description="By image_id.")
    next: str | None = Field(default=None, description="What to give as `after` for the next page; null: the last.")


class AddItem(RequestBody):
    """What is said of one photo that is added; the photos and these are in the same order."""

    model_config = ConfigDict(
        json_schema_extra=example(image_id="ada/3.jpg", label="ada", attributes={"Wearing_Hat": 1})
    )

    image_id: Text | None = Field(default=None, description="Its name; default: the file name that was sent.")
    label: Text | None = Field(default=None, description="Identity.")
    attributes: dict[Text, Literal[-1, 0, 1]] | None = Field(
        default=None, max_length=64, description="Name, one of CelebA's 40 -> 1 it is so, -1 it is not, 0 nobody said."
    )


class AddOptions(RequestBody):
    """The part `options` of POST /v1/images."""

    model_config = ConfigDict(json_schema_extra=example(items=[{"image_id": "ada/3.jpg", "label": "ada"}]))

    items: list[AddItem] | None = Field(default=None, max_length=1000, description="One for each photo.")


class AddedItem(BaseModel):
    """What became of one photo."""

    image_id: str = Field(description="The name that it was given.")
    status: int = Field(description="201 added, 200 the same was there, 409 another photo has this name, else refused.")
    faces: int = Field(default=0, description="Faces found in it.")
    images: list[str] = Field(default_factory=list, description="The images that it became.")
    error: ErrorDetail | None = Field(default=None, description="Why it was not added.")


class AddAnswer(FromGallery):
    """POST /v1/images. What is said to be added is on disk."""

    model_config = ConfigDict(
        json_schema_extra=gallery_example(
            items=[{"image_id": "ada/3.jpg", "status": 201, "faces": 1, "images": ["ada/3.jpg"]}], added=1
        )
    )

    items: list[AddedItem] = Field(description="One for each photo, in the order sent.")
    added: int = Field(description="How many of them are new.")


class Pending(BaseModel):
    """Bytes that are not gone yet."""

    what: str = Field(description="The file that still holds them.")
    until: str = Field(description="What removes them.")


class Receipt(BaseModel):
    """DELETE /v1/images: what was deleted, and where something is left."""

    model_config = ConfigDict(
        json_schema_extra=example(
            receipt_id="r-000013",
            deleted=["ada/3.jpg"],
            at="2026-03-01T12:00:00Z",
            removed=["embedding", "crop", "original"],
            pending=[],
            not_ours=[],
            live=13,
        )
    )

    receipt_id: str = Field(description="By which the service knows this deletion.")
    deleted: list[str] = Field(description="Images that are gone from every answer.")
    at: datetime = Field(description="When.")
    removed: list[str] = Field(description="What of them is gone now.")
    pending: list[Pending] = Field(description="What is gone after the next compaction.")
    not_ours: list[str] = Field(description="Where copies may be that the service does not own.")
    live: int = Field(ge=0, description="Number of this change.")
