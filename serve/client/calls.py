"""Every operation of the API: its address, what goes out, what comes back. Nothing is sent here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from serve.client.photos import NamedPhoto, PhotoLike, name_of, named_photos, read_photo
from serve.schemas import (
    AddAnswer,
    AddItem,
    AddOptions,
    BatchAnswer,
    DuplicatesPage,
    FacesAnswer,
    Filter,
    Health,
    ImageInfo,
    ImagePage,
    MergeRequest,
    NameRequest,
    PeopleAfter,
    PeoplePage,
    PersonPhotos,
    Ready,
    Receipt,
    ReloadAnswer,
    ReloadRequest,
    SearchAnswer,
    SearchOptions,
    ServiceInfo,
    SnapshotAnswer,
    SplitRequest,
    VerifyAnswer,
)

T = TypeVar("T")
Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """A request that can be sent.

    template: the address, with {names} that `place` fills. read: makes the answer of a response that is one.
    fine: statuses that are an answer. again: doing it twice is the same as doing it once.
    """

    method: str
    template: str
    read: Callable[[httpx.Response], T]
    place: Values = field(default_factory=dict)
    params: Values = field(default_factory=dict)
    sent: Values = field(default_factory=dict)
    fine: tuple[int, ...] = (200, 201)
    again: bool = True

    @property
    def path(self) -> str:
        return self.template.format(**{name: quote(str(value), safe="") for name, value in self.place.items()})

    def arguments(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """What `httpx.Client.request` is given after method and address. Args: headers: of every request."""
        said = {name: value for name, value in self.params.items() if value is not None}
        return {**self.sent, "params": said, "headers": {**headers, **self.sent.get("headers", {})}}


B = TypeVar("B", bound=BaseModel)


def _as(body: type[B]) -> Callable[[httpx.Response], B]:
    return lambda response: body.model_validate_json(response.content)


def _content(response: httpx.Response) -> bytes:
    return response.content


def _photo(photo: PhotoLike) -> dict[str, Any]:
    return {"content": read_photo(photo), "headers": {"content-type": "application/octet-stream"}}


def _json(body: BaseModel) -> dict[str, Any]:
    text = body.model_dump_json(exclude_unset=True)
    return {"content": text.encode(), "headers": {"content-type": "application/json"}}


def _form(photos: Sequence[tuple[str, NamedPhoto]], options: BaseModel | None) -> dict[str, Any]:
    files: list[tuple[str, tuple[str, bytes, str]]] = [
        (part, (photo.name, photo.data, "application/octet-stream")) for part, photo in photos
    ]
    if options is not None:
        text = options.model_dump_json(exclude_unset=True)
        files.append(("options", ("options.json", text.encode(), "application/json")))
    return {"files": files}


def _filter(filter: Filter | None) -> str | None:
    return None if filter is None else json.dumps(filter.model_dump(mode="json", exclude_none=True))


def search(photo: PhotoLike | None, options: SearchOptions) -> Call[SearchAnswer]:
    if photo is None:
        sent = _json(options)
    elif options.model_fields_set:
        sent = _form([("photo", NamedPhoto(name_of(photo, "photo"), read_photo(photo)))], options)
    else:
        sent = _photo(photo)
    return Call(method="POST", template="/v1/search", read=_as(SearchAnswer), sent=sent)


def search_batch(photos: Iterable[PhotoLike | NamedPhoto], options: SearchOptions) -> Call[BatchAnswer]:
    sent = _form([("photo", photo) for photo in named_photos(photos)], options)
    return Call(method="POST", template="/v1/search/batch", read=_as(BatchAnswer), sent=sent)


def verify(first: PhotoLike, second: PhotoLike, far: float | None) -> Call[VerifyAnswer]:
    pair = [("first", NamedPhoto("first", read_photo(first))), ("second", NamedPhoto("second", read_photo(second)))]
    return Call(
        method="POST", template="/v1/verify", read=_as(VerifyAnswer), params={"far": far}, sent=_form(pair, None)
    )


def faces(photo: PhotoLike) -> Call[FacesAnswer]:
    return Call(method="POST", template="/v1/faces", read=_as(FacesAnswer), sent=_photo(photo))


def add(
    photos: Iterable[PhotoLike | NamedPhoto], items: Sequence[AddItem] | None, label: str | None, params: Values
) -> Call[AddAnswer]:
    """Args: label: of every photo, where there are no items. Raises: ValueError for both."""
    if items is not None and label is not None:
        raise ValueError("label and items are both given: say the labels in items.")
    named = named_photos(photos)
    if label is not None:
        items = [AddItem(label=label) for _ in named]
    options = None if items is None else AddOptions(items=list(items))
    sent = _form([("photo", photo) for photo in named], options)
    said = {name: _bool(value) for name, value in params.items()}
    return Call(method="POST", template="/v1/images", read=_as(AddAnswer), params=said, sent=sent)


def _bool(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def images(after: str | None, limit: int | None, filter: Filter | None) -> Call[ImagePage]:
    params = {"after": after, "limit": limit, "filter": _filter(filter)}
    return Call(method="GET", template="/v1/images", read=_as(ImagePage), params=params)


def image(image_id: str) -> Call[ImageInfo]:
    return Call(method="GET", template="/v1/images/{id}", read=_as(ImageInfo), place={"id": image_id})


def thumbnail(image_id: str, size: int | None) -> Call[bytes]:
    template = "/v1/images/{id}/thumbnail"
    return Call(method="GET", template=template, read=_content, place={"id": image_id}, params={"size": size})


def original(image_id: str) -> Call[bytes]:
    return Call(method="GET", template="/v1/images/{id}/original", read=_content, place={"id": image_id})


def delete(image_id: str) -> Call[Receipt]:
    return Call(method="DELETE", template="/v1/images/{id}", read=_as(Receipt), place={"id": image_id}, again=False)


def delete_label(label: str) -> Call[Receipt]:
    return Call(method="DELETE", template="/v1/images", read=_as(Receipt), params={"label": label}, again=False)


def people(after: str | None, limit: int | None) -> Call[PeoplePage]:
    return Call(method="GET", template="/v1/people", read=_as(PeoplePage), params={"after": after, "limit": limit})


def person(number: int, after: str | None, limit: int | None) -> Call[PersonPhotos]:
    params = {"after": after, "limit": limit}
    return Call(method="GET", template="/v1/people/{id}", read=_as(PersonPhotos), place={"id": number}, params=params)


def merge(number: int, into: int) -> Call[PeopleAfter]:
    return _correct("/v1/people/{id}/merge", number, MergeRequest(into=into))


def name(number: int, called: str | None) -> Call[PeopleAfter]:
    return _correct("/v1/people/{id}/name", number, NameRequest(name=called))


def split(number: int, image_ids: Sequence[str]) -> Call[PeopleAfter]:
    return _correct("/v1/people/{id}/split", number, SplitRequest(image_ids=list(image_ids)))


def _correct(template: str, number: int, body: BaseModel) -> Call[PeopleAfter]:
    place = {"id": number}
    return Call(method="POST", template=template, read=_as(PeopleAfter), place=place, sent=_json(body), again=False)


def duplicates(after: str | None, limit: int | None) -> Call[DuplicatesPage]:
    params = {"after": after, "limit": limit}
    return Call(method="GET", template="/v1/duplicates", read=_as(DuplicatesPage), params=params)


def info() -> Call[ServiceInfo]:
    return Call(method="GET", template="/v1/info", read=_as(ServiceInfo))


def livez() -> Call[Health]:
    return Call(method="GET", template="/livez", read=_as(Health))


def readyz() -> Call[Ready]:
    return Call(method="GET", template="/readyz", read=_as(Ready), fine=(200, 503))


def metrics() -> Call[str]:
    return Call(method="GET", template="/metrics", read=lambda response: response.text)


def reload(version: str | None) -> Call[ReloadAnswer]:
    body = ReloadRequest() if version is None else ReloadRequest(version=version)
    return Call(method="POST", template="/v1/admin/reload", read=_as(ReloadAnswer), sent=_json(body), again=False)


def snapshot() -> Call[SnapshotAnswer]:
    return Call(method="POST", template="/v1/admin/snapshot", read=_as(SnapshotAnswer), again=False)
