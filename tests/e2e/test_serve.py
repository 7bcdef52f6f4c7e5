"""The query service over real HTTP: a real Ray Serve on loopback, a real (tiny, random-weight) model and index."""

from __future__ import annotations

import base64
import http.client
import io
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from retrieval.artifacts.manifest import read_manifest
from retrieval.images import pixels
from serve.schemas import Answer, ErrorBody, Info
from tests.support.service import MAX_BODY, MAX_K, MAX_QUEUE, MAX_UPLOADS, TIMEOUT, Service, running_service

PAGE = Path(__file__).parents[2] / "serve/page"


@pytest.fixture(scope="module")
def service(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("serve")) as running:
        yield running


def search(service: Service, photo: bytes, query: str = "k=5") -> httpx.Response:
    return service.client.post(f"/search?{query}", content=photo, headers={"Content-Type": "image/jpeg"})


def refusal(response: httpx.Response, status: int, reason: str) -> str:
    """Checks that a response is a refusal in the one form; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = ErrorBody.model_validate(response.json()).error
    assert error.reason == reason
    assert len(error.message) > 10
    return error.message


def test_a_stored_photo_finds_itself_first_and_the_rest_in_order(service: Service) -> None:
    for image_id, path in list(service.made.photos.items())[:4]:
        response = search(service, path.read_bytes(), "k=7")
        assert response.status_code == 200, response.text
        answer = Answer.model_validate(response.json())
        assert [result.rank for result in answer.results] == list(range(1, 8))
        scores = [result.score for result in answer.results]
        assert scores == sorted(scores, reverse=True)
        assert answer.results[0].image_id == image_id
        assert scores[0] == pytest.approx(1, abs=1e-4) and scores[1] < 0.9999
        assert all(result.label == service.made.labels[result.image_id] for result in answer.results)
        assert (answer.query.width, answer.query.height) == (178, 218)
        assert answer.query.box[0] < answer.query.box[2] <= 1.5 * 178
        assert 0 < answer.seconds.search < answer.seconds.total


def test_thumbnails_are_the_stored_crops(service: Service) -> None:
    path = next(iter(service.made.photos.values()))
    answer = Answer.model_validate(search(service, path.read_bytes(), "k=3&crop=true").json())
    seen = []
    for result in answer.results:
        response = service.client.get(result.thumbnail)
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/jpeg"
        assert pixels.decode(response.content)[0].shape == (96, 96, 3)
        seen.append(response.content)
        again = service.client.get(result.thumbnail, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert len(set(seen)) == 3
    # The query went through the kernel that made the gallery: the same photo gives the same crop, byte for byte.
    assert answer.query.crop is not None
    assert base64.b64decode(answer.query.crop.removeprefix("data:image/jpeg;base64,")) == seen[0]


def test_curl_needs_no_content_type_and_k_has_a_default(service: Service) -> None:
    photo = next(iter(service.made.photos.values())).read_bytes()
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl --data-binary says by itself
    response = service.client.post("/search", content=photo, headers=form)
    assert len(response.json()["results"]) == 10


def test_an_exif_rotated_photo_is_turned_upright(service: Service) -> None:
    path = next(iter(service.made.photos.values()))
    lying, exif = Image.open(path).rotate(90, expand=True), Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise, which stands it up again
    data = io.BytesIO()
    lying.save(data, "JPEG", quality=97, exif=exif)
    answer = Answer.model_validate(search(service, data.getvalue()).json())
    assert (answer.query.width, answer.query.height) == (178, 218)
    straight = Answer.model_validate(search(service, path.read_bytes()).json())
    assert answer.query.box == pytest.approx(straight.query.box, abs=12)


def test_info_and_health_tell_what_is_loaded(service: Service) -> None:
    assert service.client.get("/health").json() == {"status": "ok"}
    info = Info.model_validate(service.client.get("/info").json())
    index = read_manifest(service.made.folder / "index/test")
    assert info.index.fingerprint == index.fingerprint
    assert (info.model.fingerprint, info.collection) == (index.inputs["model"], index.inputs["collection"])
    assert info.index.num_images == len(service.made.photos)
    assert info.index.num_identities == len(set(service.made.labels.values()))
    assert info.limits.max_body_bytes == MAX_BODY


def test_the_page_is_whole_and_asks_nothing_of_other_servers(service: Service) -> None:
    page = service.client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    names = [path.relative_to(PAGE).as_posix() for path in sorted(PAGE.rglob("*.*"))]
    assert {"style.css", "modules/main.js"} <= set(names)
    files = {name: service.client.get(f"/{'' if name == 'index.html' else name}") for name in names}
    assert {name: file.status_code for name, file in files.items()} == dict.fromkeys(names, 200)
    sources = "".join(file.text for file in files.values())
    assert "https://" not in sources and "innerHTML" not in sources


def jpeg(width: int, height: int, noise: bool = False) -> bytes:
    high = 256 if noise else 1
    return pixels.encode_jpeg(np.random.default_rng(0).integers(0, high, (height, width, 3), dtype=np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: what a decompression bomb begins with."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("photo", "status", "reason"),
    [
        (b"", 400, "empty"),
        (b"hello, I am no photo", 415, "not-an-image"),
        (jpeg(200, 200, noise=True)[:5000], 400, "truncated"),
        (jpeg(8, 8), 422, "too-small"),
        (jpeg(300, 300), 422, "no-face"),
        (jpeg(1500, 1500), 413, "too-large"),
        (png_header(60_000, 60_000), 413, "too-large"),
    ],
    ids=["empty", "text", "truncated", "tiny", "no-face", "many-pixels", "bomb"],
)
def test_a_bad_photo_is_refused_with_its_reason(service: Service, photo: bytes, status: int, reason: str) -> None:
    refusal(search(service, photo), status, reason)


@pytest.mark.parametrize("k", ["0", "-1", str(MAX_K + 1), "many", "1.5", ""])
def test_k_out_of_range(service: Service, k: str) -> None:
    assert "k" in refusal(search(service, jpeg(64, 64), f"k={k}"), 422, "bad-parameter")


def test_multipart_and_json_bodies_are_refused_with_the_way_to_go_on(service: Service) -> None:
    photo = next(iter(service.made.photos.values())).read_bytes()
    message = refusal(service.client.post("/search", files={"image": photo}), 415, "not-a-photo")
    assert "--data-binary" in message
    refusal(service.client.post("/search", json={}), 415, "not-a-photo")


@pytest.mark.parametrize("path", ["/nothing", "/search/x", "/gallery", "/modules/main.js.map", "/page/x.css", "/docs"])
def test_unknown_addresses(service: Service, path: str) -> None:
    refusal(service.client.get(path), 404, "not-found")


def test_a_wrong_method(service: Service) -> None:
    response = service.client.get("/search")
    refusal(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "row", ["20", "999999999999", "9" * 40, "-1", "+1", "1.0", "0x1", "%20", "abc", "%D9%A1", "1%00"]
)
def test_gallery_rows_out_of_range(service: Service, row: str) -> None:
    assert len(service.made.photos) == 20
    refusal(service.client.get(f"/gallery/{row}"), 404, "not-found")


@pytest.mark.parametrize(
    "target",
    [
        "/gallery/../../../etc/passwd",
        "/gallery/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/../serve/app.py",
        "/gallery//etc/passwd",
    ],
)
def test_path_traversal_reads_nothing(service: Service, target: str) -> None:
    # By hand: httpx, like browsers, would tidy the path up before sending it.
    status, body = raw(service.port, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status == 404
    assert ErrorBody.model_validate_json(body).error.reason == "not-found"


def raw(port: int, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are, wait for one answer: (status, body)."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT + 20) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


def test_a_body_declared_too_large_is_refused_before_it_is_sent(service: Service) -> None:
    head = "POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 5000000000\r\n\r\n"
    status, body = raw(service.port, head.encode() + b"\xff\xd8\xff")
    assert status == 413
    assert ErrorBody.model_validate_json(body).error.reason == "body-too-large"


def test_a_body_of_unknown_length_is_refused_at_the_limit(service: Service) -> None:
    head = "POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = (f"{10_000:x}\r\n".encode() + b"x" * 10_000 + b"\r\n") * (MAX_BODY // 10_000 + 1)
    status, body = raw(service.port, head.encode() + chunks)  # no last chunk: the server must not wait for one
    assert status == 413
    assert ErrorBody.model_validate_json(body).error.reason == "body-too-large"


def test_more_uploads_than_places_are_told_to_come_back(service: Service) -> None:
    head = "POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"
    photo = next(iter(service.made.photos.values())).read_bytes()
    held: list[socket.socket] = []

    def hold_one_more_and_ask() -> httpx.Response:
        # An upload that has not come yet holds its place. One more before every question: a question that overtakes
        # them on its warm connection takes a place, the last of them is turned away, and a place would stay free.
        held.append(socket.create_connection(("127.0.0.1", service.port)))
        held[-1].sendall(head.encode())
        return search(service, photo)

    try:
        response = wait_for(hold_one_more_and_ask, 503)
        refusal(response, 503, "busy")
        assert response.headers["retry-after"] == "1"
        assert len(held) >= MAX_UPLOADS, "refused while places were free"
        assert service.client.get("/health").status_code == 200  # being busy is not being ill
        assert service.client.get("/gallery/0").status_code == 200
    finally:
        for connection in held:
            connection.close()
    assert wait_for(lambda: search(service, photo), 200).status_code == 200, "places of clients that left come free"


def wait_for(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    """Ask until the answer has this status, a minute at most; the last answer."""
    deadline = time.monotonic() + 60
    while (response := ask()).status_code != status and time.monotonic() < deadline:
        time.sleep(0.1)
    return response


def test_a_crowd_gets_answers_or_503_and_nothing_else(service: Service) -> None:
    photo = next(iter(service.made.photos.values())).read_bytes()
    with ThreadPoolExecutor(24) as pool:
        responses = list(pool.map(lambda _: search(service, photo), range(72)))
    answered = [response for response in responses if response.status_code == 200]
    for response in responses:
        if response.status_code != 200:
            refusal(response, 503, "busy")
    assert len(answered) >= MAX_QUEUE and len(answered) < 72
    # The network computes photos one at a time or in batches; both give the same answer.
    first = [result["image_id"] for result in answered[0].json()["results"]]
    assert all([result["image_id"] for result in response.json()["results"]] == first for response in answered)


def test_an_upload_that_stalls_is_timed_out(service: Service) -> None:
    head = "POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"
    status, body = raw(service.port, head.encode() + b"\xff\xd8\xff")
    assert status == 408
    assert ErrorBody.model_validate_json(body).error.reason == "too-slow"


def test_a_large_upload_gets_its_refusal_and_the_connection_survives(service: Service) -> None:
    refusal(search(service, b"x" * 20_000_000), 413, "body-too-large")
    assert service.client.get("/health").status_code == 200
