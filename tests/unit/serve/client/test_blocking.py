"""The client against a whole service on loopback: what it asks is answered, and comes back typed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from retrieval.artifacts.folder import Folder
from serve import keys
from serve.client import ApiError, Client
from serve.client.patience import Patience
from serve.schemas import Filter, SearchAnswer
from tests.support.listening import listening
from tests.support.workspace import Workspace, make_workspace
from tests.unit.serve.routes.test_people import group


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = make_workspace(tmp_path_factory.mktemp("client"))
    group(made)
    return made


def test_a_program_asks_for_everything(made: Workspace) -> None:
    (image_id, path), (other_id, other), *_ = made.photos.items()
    with listening(workspace=str(made.folder)) as at, Client(at.address) as client:
        assert client.livez().status == "ok"
        assert client.readyz().parts["model"].ok
        info = client.info()
        assert info.index.num_images == len(made.photos)
        for answer in (
            client.search(path),
            client.search(str(path), k=10),
            client.search(path.read_bytes(), k=10),
            client.search(image_id=image_id, k=10),
        ):
            assert isinstance(answer, SearchAnswer)
            assert answer.results[0].image_id == image_id
        filtered = client.search(path, k=50, filter=Filter(label=[made.labels[other_id] or ""]))
        assert {result.label for result in filtered.results} == {made.labels[other_id]}
        batch = client.search_batch([path, b"no photo", other], k=1)
        assert [(item.name, item.status) for item in batch.items] == [(path.name, 200), ("1", 415), (other.name, 200)]
        assert client.verify(path, path).score == pytest.approx(1, abs=1e-5)
        assert client.faces(path).faces[0].usable
        page = client.images(limit=3)
        assert [one.image_id for one in page.images] == sorted(made.photos)[:3]
        assert [one.image_id for one in client.every_image()] == sorted(made.photos)
        assert client.image(image_id).image_id == image_id
        assert client.thumbnail(image_id)[:2] == b"\xff\xd8"
        first, second = client.people(limit=2).people
        assert client.name(first.person, "Ada").people[0].name == "Ada"
        assert client.merge(second.person, into=first.person).people[0].photos == first.photos + second.photos
        assert client.person(first.person).name == "Ada"
        assert client.split(first.person, second.image_ids[:1]).people[1].photos == 1
        assert client.duplicates().total >= 0
        assert "retrieval_requests_total" in client.metrics()
        with pytest.raises(ApiError) as caught:
            client.search(b"no photo")
        assert (caught.value.status, caught.value.reason) == (415, "not-an-image")
        with pytest.raises(ValueError, match="colour"):
            client.search(path, colour="red")
        with pytest.raises(ApiError, match="no such image|There is no"):
            client.image("nobody")


def test_adding_and_deleting(made: Workspace) -> None:
    photo = next(iter(made.photos.values()))
    with listening(workspace=str(made.folder)) as at, Client(at.address) as client:
        added = client.add([photo.read_bytes() + b"\0"], label="new person")
        (item,) = added.items
        assert item.status == 201 and added.added == 1
        assert client.add([photo.read_bytes() + b"\0"], label="new person").items[0].status == 200
        found = client.search(photo, k=1, filter=Filter(label=["new person"])).results
        assert [result.image_id for result in found] == item.images
        receipt = client.delete(item.images[0])
        assert receipt.deleted == item.images
        assert client.search(photo, k=1, filter=Filter(label=["new person"])).results == []
        with pytest.raises(ApiError) as caught:
            client.original(item.images[0])
        assert caught.value.status == 404


def test_a_key_opens_the_door(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)
    token = keys.create(Folder.of(made.folder), "shop", "search")
    with listening(workspace=str(made.folder)) as at:
        with Client(at.address, key=token) as client:
            assert client.search(next(iter(made.photos.values())), k=1).results
            with pytest.raises(ApiError) as caught:
                client.metrics()
            assert caught.value.reason == "not-allowed"
        with Client(at.address) as client, pytest.raises(ApiError) as caught:
            client.info()
        assert caught.value.reason == "no-key"


class _Full(BaseHTTPRequestHandler):
    """Full twice, then well."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        well = type(self).asked > 2
        body = b'{"status": "ok"}' if well else b'{"error": {"reason": "busy", "message": "full"}}'
        self.send_response(200 if well else 503)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def full() -> Iterator[str]:
    _Full.asked = 0
    server = HTTPServer(("127.0.0.1", 0), _Full)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_comes_back_when_it_was_told_to(full: str) -> None:
    with Client(full) as client:
        assert client.livez().status == "ok"
    assert _Full.asked == 3


def test_it_gives_up(full: str) -> None:
    with Client(full, patience=Patience(retries=1)) as client, pytest.raises(ApiError) as caught:
        client.livez()
    assert (_Full.asked, caught.value.reason, caught.value.retry_after) == (2, "busy", 0.0)


def test_where_nothing_listens(full: str) -> None:
    with Client("http://127.0.0.1:9", patience=Patience(retries=1, longest_s=1)) as client:
        with pytest.raises(httpx.ConnectError):
            client.livez()
