"""The client for programs that wait: `with Client(ADDRESS) as at: ...`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx

from serve.client import calls
from serve.client.calls import Call
from serve.client.failures import error_of
from serve.client.patience import Patience, Waits
from serve.client.photos import NamedPhoto, PhotoLike
from serve.schemas import (
    AddAnswer,
    AddItem,
    BatchAnswer,
    DuplicatesPage,
    FacesAnswer,
    Filter,
    Health,
    ImageInfo,
    ImagePage,
    PeopleAfter,
    PeoplePage,
    PersonPhotos,
    Ready,
    Receipt,
    ReloadAnswer,
    SearchAnswer,
    SearchOptions,
    ServiceInfo,
    SnapshotAnswer,
    VerifyAnswer,
)

T = TypeVar("T")


class Client:
    """Each operation of the API as a method.

    Raises: ApiError for a refusal; httpx.TransportError if nothing answers; ValueError (pydantic) for options that no
        service takes, before anything is sent.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        patience: Patience | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """Args: key: if the service asks for one. timeout_s: of one request. http: another way to send, for tests; it
        is closed by whoever made it."""
        self._patience = Patience() if patience is None else patience
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._own = http is None
        self._http = httpx.Client(base_url=base_url, timeout=timeout_s) if http is None else http

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the connections."""
        if self._own:
            self._http.close()

    def send(self, call: Call[T]) -> T:
        """Sends one of `serve.client.calls`, again where that helps."""
        waits = Waits(self._patience, call.again)
        while True:
            try:
                response = self._http.request(call.method, call.path, **call.arguments(self._headers))
            except httpx.TransportError as error:
                if (wait := waits.after_failure(error)) is None:
                    raise
            else:
                if response.status_code in call.fine:
                    return call.read(response)
                if (wait := waits.after(response)) is None:
                    raise error_of(response)
            time.sleep(wait)

    def search(self, photo: PhotoLike | None = None, /, **options: Any) -> SearchAnswer:
        """The images most like a photo, or, without one, like `image_id`, `image_ids`, an `embedding` or a `text`.

        Args: options: the fields of `SearchOptions`: k, min_score, filter, face, ...
        """
        return self.send(calls.search(photo, SearchOptions(**options)))

    def search_batch(self, photos: Iterable[PhotoLike | NamedPhoto], **options: Any) -> BatchAnswer:
        """Many photos at once: one that is refused refuses no other."""
        return self.send(calls.search_batch(photos, SearchOptions(**options)))

    def verify(self, first: PhotoLike, second: PhotoLike, *, far: float | None = None) -> VerifyAnswer:
        """Whether two photos show the same."""
        return self.send(calls.verify(first, second, far))

    def faces(self, photo: PhotoLike) -> FacesAnswer:
        """The faces of a photo, and which of them could be searched with."""
        return self.send(calls.faces(photo))

    def add(
        self,
        photos: Iterable[PhotoLike | NamedPhoto],
        items: Sequence[AddItem] | None = None,
        *,
        label: str | None = None,
        keep_original: bool | None = None,
        replace: bool | None = None,
        faces: Literal["best", "all"] | None = None,
    ) -> AddAnswer:
        """Photos into the gallery, on disk when this returns. Sending the same again changes nothing.

        Args: items: image_id, label and attributes of each photo, in the same order; default: by the files' names, and
            `label` for all.
        """
        said = {"keep_original": keep_original, "replace": replace, "faces": faces}
        return self.send(calls.add(photos, items, label, said))

    def images(self, *, after: str | None = None, limit: int | None = None, filter: Filter | None = None) -> ImagePage:
        """A page of the gallery; `after` is the `next` of the one before."""
        return self.send(calls.images(after, limit, filter))

    def image(self, image_id: str) -> ImageInfo:
        """What is known of an image."""
        return self.send(calls.image(image_id))

    def thumbnail(self, image_id: str, *, size: int | None = None) -> bytes:
        """The stored crop, JPEG."""
        return self.send(calls.thumbnail(image_id, size))

    def original(self, image_id: str) -> bytes:
        """The photo as it was sent, where it is kept."""
        return self.send(calls.original(image_id))

    def delete(self, image_id: str) -> Receipt:
        """An image out of the gallery."""
        return self.send(calls.delete(image_id))

    def delete_label(self, label: str) -> Receipt:
        """All images of an identity out of the gallery."""
        return self.send(calls.delete_label(label))

    def people(self, *, after: str | None = None, limit: int | None = None) -> PeoplePage:
        """A page of the people that were found, the largest first."""
        return self.send(calls.people(after, limit))

    def person(self, person: int, *, after: str | None = None, limit: int | None = None) -> PersonPhotos:
        """A page of the photos of one person."""
        return self.send(calls.person(person, after, limit))

    def merge(self, person: int, *, into: int) -> PeopleAfter:
        """All photos of one person are another's."""
        return self.send(calls.merge(person, into))

    def name(self, person: int, name: str | None) -> PeopleAfter:
        """What a person is called; None takes the name away."""
        return self.send(calls.name(person, name))

    def split(self, person: int, image_ids: Sequence[str]) -> PeopleAfter:
        """These photos are of somebody else."""
        return self.send(calls.split(person, image_ids))

    def duplicates(self, *, after: str | None = None, limit: int | None = None) -> DuplicatesPage:
        """A page of pictures that are there more than once."""
        return self.send(calls.duplicates(after, limit))

    def info(self) -> ServiceInfo:
        """What is loaded, what can be asked for, what is refused."""
        return self.send(calls.info())

    def livez(self) -> Health:
        """That the process answers."""
        return self.send(calls.livez())

    def readyz(self) -> Ready:
        """Whether every part is well; also an answer where one is not."""
        return self.send(calls.readyz())

    def metrics(self) -> str:
        """For Prometheus."""
        return self.send(calls.metrics())

    def reload(self, version: str | None = None) -> ReloadAnswer:
        """What is published now, or a version that was before, answers from now on."""
        return self.send(calls.reload(version))

    def snapshot(self) -> SnapshotAnswer:
        """A copy of the changes since the last index, in the workspace."""
        return self.send(calls.snapshot())

    def every_image(self, filter: Filter | None = None) -> Iterator[ImageInfo]:
        """All images of the gallery, page after page."""
        after: str | None = None
        while True:
            page = self.images(after=after, filter=filter)
            yield from page.images
            if (after := page.next) is None:
                return
