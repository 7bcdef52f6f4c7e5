"""The service's end of a process that decodes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from retrieval.images.settings import PrepareConfig
from serve.photos.framing import Broken
from serve.photos.handle import Handle, _environment
from serve.photos.limits import Caps
from serve.photos.messages import Look, Looked
from tests.support.hostile import written

WHOLE = Look(config=PrepareConfig(crop="none", size=32))


def test_it_looks_dies_and_is_buried() -> None:
    async def live() -> None:
        handle = Handle(Caps())
        await handle.ready()
        seen = await handle.look(written("PNG"), WHOLE, 5.0)
        assert isinstance(seen, Looked) and (seen.width, seen.height) == (64, 64)
        os.kill(handle.pid, signal.SIGSEGV)
        with pytest.raises(Broken):
            await handle.look(written("PNG"), WHOLE, 5.0)
        assert await handle.ended() == "signal SIGSEGV"
        handle.kill()

    asyncio.run(live())


def test_it_is_worn_after_many_ways_of_looking() -> None:
    async def live() -> None:
        handle = Handle(Caps())
        await handle.ready()
        for size in range(16, 32):
            assert not handle.worn
            await handle.learn(Look(config=PrepareConfig(crop="none", size=size)))
        assert handle.worn
        handle.kill()
        assert await handle.ended() == "signal SIGKILL"

    asyncio.run(live())


def test_nothing_secret_goes_to_who_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s3cret")
    assert "s3cret" not in str(_environment())
