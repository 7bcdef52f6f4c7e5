"""Bodies on their way in: limits, deadlines, and that slow ones take no place from others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message

from serve.edge import Refusal
from serve.settings import ServeArgs
from serve.uploads import Uploads


class Upload:
    """A client that sends pieces, one every `every` seconds, and counts how many were taken."""

    def __init__(self, pieces: Iterable[bytes], every: float = 0.0) -> None:
        self._pieces, self._every = iter(pieces), every
        self.taken = 0

    async def receive(self) -> Message:
        self.taken += 1
        await asyncio.sleep(self._every)
        piece = next(self._pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}


def request_of(upload: Upload, length: str | None = None) -> Request:
    headers = [] if length is None else [(b"content-length", length.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, upload.receive)


def uploads_of(**settings: Any) -> Uploads:
    return Uploads(ServeArgs(workspace="w", **settings))


def read(upload: Upload, limit: int, length: str | None = None) -> bytes:
    return asyncio.run(uploads_of().read(request_of(upload, length), limit))


def test_a_body_at_the_limit_is_read_whole() -> None:
    assert read(Upload([b"abc", b"", b"de"]), 5, "5") == b"abcde"
    assert read(Upload([]), 5) == b""


def test_a_body_declared_too_large_is_not_read_at_all() -> None:
    upload = Upload([b"abc"])
    with pytest.raises(Refusal) as refused:
        read(upload, 5, "6")
    assert (refused.value.reason, upload.taken) == ("body-too-large", 0)


@pytest.mark.parametrize("length", [None, "1", "nonsense", "-1"])
def test_a_body_that_turns_out_too_large_is_not_read_further(length: str | None) -> None:
    upload = Upload([b"abc"] * 1000)
    with pytest.raises(Refusal) as refused:
        read(upload, 5, length)
    assert (refused.value.reason, upload.taken) == ("body-too-large", 2)


def test_a_digit_of_another_script_is_no_length() -> None:
    with pytest.raises(Refusal):
        read(Upload([b"abcdef"]), 5, "\u0663")
    assert read(Upload([b"ab"]), 5, "4") == b"ab"


def refused(uploads: Uploads, upload: Upload) -> Refusal:
    with pytest.raises(Refusal) as raised:
        asyncio.run(uploads.read(request_of(upload), 1000))
    assert (uploads.num, uploads.held) == (0, 0), "what was refused holds nothing"
    return raised.value


def test_a_sender_that_stops_is_let_go_when_its_grace_is_over() -> None:
    uploads = uploads_of(upload_grace_s=0.2, min_upload_rate=100)
    one = refused(uploads, Upload([b"x" * 10, b"y"], every=30))
    assert one.reason == "too-slow" and "0 bytes came in 0.2 s" in one.message


def test_a_sender_below_the_least_rate_is_let_go_though_it_sends() -> None:
    uploads = uploads_of(upload_grace_s=0.2, min_upload_rate=100)
    upload = Upload([b"x"] * 1000, every=0.02)
    assert refused(uploads, upload).reason == "too-slow"
    assert upload.taken < 100


def test_a_sender_above_the_least_rate_is_not_bothered_until_the_deadline() -> None:
    quick = uploads_of(upload_grace_s=0.2, min_upload_rate=100)
    assert len(asyncio.run(quick.read(request_of(Upload([b"x" * 20] * 20, every=0.02)), 1000))) == 400
    short = uploads_of(upload_grace_s=0.2, min_upload_rate=100, upload_timeout_s=0.2)
    assert "within 0.2 s" in refused(short, Upload([b"x" * 20] * 40, every=0.02)).message


def test_no_rate_is_asked_for_where_it_is_zero() -> None:
    uploads = uploads_of(upload_grace_s=0.0, min_upload_rate=0)
    assert asyncio.run(uploads.read(request_of(Upload([b"x"] * 3, every=0.1)), 10)) == b"xxx"


def test_slow_senders_keep_no_fast_one_out_while_there_is_a_place() -> None:
    uploads = uploads_of(max_uploads=5, upload_grace_s=0.3)

    async def crowd() -> None:
        slow = [asyncio.create_task(uploads.read(request_of(Upload([b"x"] * 9, every=9)), 100)) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert uploads.num == 5
        with pytest.raises(Refusal) as full:
            await uploads.read(request_of(Upload([b"ab"])), 100)
        assert full.value.reason == "busy" and full.value.headers["Retry-After"] == "1"
        told = await asyncio.gather(*slow, return_exceptions=True)
        assert {one.reason for one in told if isinstance(one, Refusal)} == {"too-slow"}
        assert await uploads.read(request_of(Upload([b"ab"])), 100) == b"ab"

    asyncio.run(crowd())


def test_what_all_bodies_hold_together_is_bounded() -> None:
    uploads = uploads_of(max_upload_bytes=1024)

    async def crowd() -> None:
        first = asyncio.create_task(uploads.read(request_of(Upload([b"x" * 900], every=0.2)), 2000))
        await asyncio.sleep(0.3)
        assert uploads.held == 900
        with pytest.raises(Refusal) as full:
            await uploads.read(request_of(Upload([b"y" * 200])), 2000)
        assert full.value.reason == "busy"
        assert await first == b"x" * 900 and uploads.held == 0

    asyncio.run(crowd())
