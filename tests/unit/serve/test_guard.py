"""The door: roles of requests, rates, keys that change while the service runs, and pages of other sites."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from retrieval.artifacts.folder import Folder
from serve import guard
from serve.guard import Bucket, Guard, KeyRing, charge, needed
from serve.keys import FILE, create, revoke

PAGE_HEADERS = {"host": "here"}


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/", None),
        ("GET", "/livez", None),
        ("GET", "/readyz", None),
        ("GET", "/health", None),
        ("GET", "/modules/search.js", None),
        ("GET", "/style.css", None),
        ("POST", "/", "write"),
        ("POST", "/app.js", "write"),
        ("GET", "/v1/images/app.js", "search"),
        ("GET", "/gallery/1.js", "search"),
        ("GET", "/v1/info", "search"),
        ("GET", "/info", "search"),
        ("GET", "/gallery/3", "search"),
        ("POST", "/search", "search"),
        ("POST", "/v1/search", "search"),
        ("POST", "/v1/search/batch", "search"),
        ("POST", "/v1/verify", "search"),
        ("POST", "/v1/faces", "search"),
        ("GET", "/v1/people/3", "search"),
        ("POST", "/v1/people/3/merge", "write"),
        ("POST", "/v1/images", "write"),
        ("DELETE", "/v1/images/a/b.jpg", "write"),
        ("POST", "/v1/admin/reload", "admin"),
        ("GET", "/v1/admin/anything", "admin"),
        ("GET", "/metrics", "admin"),
        ("GET", "/nobody/made/this", "search"),
        ("PUT", "/nobody/made/this", "write"),
    ],
)
def test_the_role_of_a_request(method: str, path: str, role: str | None) -> None:
    assert needed(method, path) == role


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_lets_in_a_minute_s_worth_at_once_and_then_as_they_come() -> None:
    clock = Clock()
    bucket = Bucket(6, clock)
    assert [bucket.enter() for _ in range(6)] == [0.0] * 6
    assert bucket.enter() == pytest.approx(10)
    clock.now += 4
    assert bucket.enter() == pytest.approx(6)
    clock.now += 6
    assert bucket.enter() == 0.0
    clock.now += 1e6
    assert [bucket.enter() for _ in range(7)].count(0.0) == 6, "more than a minute's is not saved up"


def test_a_large_request_is_paid_back_by_waiting() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)
    assert bucket.enter() == 0.0
    bucket.charge(89)
    assert bucket.enter() == pytest.approx(31)
    clock.now += 31.01
    assert bucket.enter() == 0.0


def test_less_than_one_a_minute_still_lets_one_in() -> None:
    clock = Clock()
    bucket = Bucket(0.5, clock)
    assert bucket.enter() == 0.0
    assert bucket.enter() == pytest.approx(120)


class Behind:
    """What is behind the door: counts who comes in, and charges as a batch does."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.photos = 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        charge(Request(scope), self.photos)
        await PlainTextResponse("in")(scope, receive, send)


@pytest.fixture
def behind() -> Behind:
    return Behind()


def door(behind: Behind, folder: Path, said: list[str] | None = None, **more: Any) -> httpx.AsyncClient:
    ring = KeyRing(Folder.of(folder), **more)
    heard = [] if said is None else said
    transport = httpx.ASGITransport(Guard(behind, ring, heard.append))
    return httpx.AsyncClient(transport=transport, base_url="http://here")


@pytest.fixture(autouse=True)
def _look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LOOK_EVERY_S", -1.0)


async def _ask(at: httpx.AsyncClient, method: str, path: str, token: str = "", **headers: str) -> tuple[int, str]:
    more = {"authorization": f"Bearer {token}"} if token else {}
    response = await at.request(method, path, headers={**more, **headers})
    return response.status_code, response.json()["error"]["reason"] if response.status_code != 200 else "in"


def run(work: Any) -> Any:
    import asyncio

    return asyncio.run(work)


def test_without_any_key_all_is_open(tmp_path: Path, behind: Behind) -> None:
    async def ask() -> None:
        at = door(behind, tmp_path)
        assert await _ask(at, "POST", "/v1/admin/reload") == (200, "in")
        assert await _ask(at, "DELETE", "/v1/images/a", "anything") == (200, "in")

    run(ask())
    assert len(behind.seen) == 2


def test_keys_count_from_the_moment_they_are_made_and_no_longer_than_they_are_good(
    tmp_path: Path, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = Folder.of(tmp_path), list[str]()

    async def ask() -> None:
        at = door(behind, tmp_path, said)
        token = create(folder, "shop", "search")
        assert await _ask(at, "POST", "/v1/search") == (401, "no-key")
        assert await _ask(at, "GET", "/") == (200, "in")
        assert await _ask(at, "POST", "/v1/search", token) == (200, "in")
        assert await _ask(at, "POST", "/v1/search", **{"x-api-key": token}) == (200, "in")
        assert await _ask(at, "POST", "/v1/search", authorization=f"bearer {token}") == (200, "in")
        assert await _ask(at, "POST", "/v1/search", authorization=f"Basic {token}") == (401, "no-key")
        assert await _ask(at, "POST", "/v1/search", token + "x") == (401, "no-key")
        assert await _ask(at, "POST", f"/v1/search?key={token}") == (401, "no-key"), "addresses are logged"
        assert await _ask(at, "POST", "/v1/images", token) == (403, "not-allowed")
        assert await _ask(at, "GET", "/metrics", token) == (403, "not-allowed")
        revoke(folder, "shop")
        assert await _ask(at, "POST", "/v1/search", token) == (401, "no-key")
        (tmp_path / FILE).unlink()
        assert await _ask(at, "POST", "/v1/search") == (401, "no-key"), "who deletes the file opens no door"
        (tmp_path / FILE).write_text("{")
        assert await _ask(at, "POST", "/v1/search") == (401, "no-key")
        response = await at.post("/v1/search")
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-content-type-options"] == "nosniff"

    run(ask())
    assert behind.seen == ["/", "/v1/search", "/v1/search", "/v1/search"]
    assert said.count("not-allowed") == 2
    assert said.count("no-key") == 8


def test_the_file_is_read_again_after_a_second_and_not_for_every_request(
    tmp_path: Path, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LOOK_EVERY_S", 1.0)
    clock = Clock()
    monkeypatch.setattr(guard.time, "monotonic", clock)

    async def ask() -> None:
        at = door(behind, tmp_path)
        create(Folder.of(tmp_path), "shop", "search")
        assert (await _ask(at, "POST", "/v1/search"))[0] == 200
        clock.now += 1.1
        assert (await _ask(at, "POST", "/v1/search"))[0] == 401

    run(ask())


def test_a_key_asks_as_often_as_it_may(tmp_path: Path, behind: Behind) -> None:
    folder = Folder.of(tmp_path)
    slow, free = create(folder, "slow", "search", 4), create(folder, "free", "search")

    async def ask() -> None:
        at = door(behind, tmp_path, share=0.5)
        for _ in range(2):
            assert await _ask(at, "GET", "/v1/info", slow) == (200, "in")
        response = await at.get("/v1/info", headers={"x-api-key": slow})
        assert (response.status_code, response.json()["error"]["reason"]) == (429, "too-many")
        assert response.headers["retry-after"] in ("29", "30")  # 2 a minute on this replica: one in 30 s
        assert await _ask(at, "GET", "/v1/images/a.jpg/thumbnail", slow) == (200, "in"), "a page shows many"
        for _ in range(20):
            assert await _ask(at, "GET", "/v1/info", free) == (200, "in")

    run(ask())


def test_a_request_of_many_photos_counts_as_many(tmp_path: Path, behind: Behind) -> None:
    token = create(Folder.of(tmp_path), "shop", "search", 60)
    behind.photos = 60

    async def ask() -> None:
        at = door(behind, tmp_path)
        assert await _ask(at, "POST", "/v1/search/batch", token) == (200, "in")
        assert await _ask(at, "POST", "/v1/search/batch", token) == (429, "too-many")

    run(ask())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://here"}, 200),
        ({"origin": "http://elsewhere"}, 403),
        ({"origin": "http://here.elsewhere"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "https://proxied"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "http://here"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_no_other_site_has_a_browser_change_anything(
    tmp_path: Path, behind: Behind, headers: dict[str, str], status: int
) -> None:
    async def ask() -> None:
        at = door(behind, tmp_path)
        assert (await _ask(at, "POST", "/v1/images", **headers))[0] == status
        assert (await _ask(at, "GET", "/v1/info", **headers))[0] == 200

    run(ask())


def test_a_prefix_of_a_proxy_opens_nothing(tmp_path: Path, behind: Behind) -> None:
    create(Folder.of(tmp_path), "shop", "search")

    async def ask() -> None:
        ring = KeyRing(Folder.of(tmp_path))
        transport = httpx.ASGITransport(Guard(behind, ring), root_path="/faces")
        at = httpx.AsyncClient(transport=transport, base_url="http://here")
        assert (await _ask(at, "GET", "/faces/"))[0] == 200
        assert (await _ask(at, "GET", "/faces/v1/info"))[0] == 401
        assert (await _ask(at, "GET", "/faces/metrics"))[0] == 401

    run(ask())
