"""What a replica holds: it starts whole or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serve.edge import Refusal
from serve.photos.pool import PhotoPool
from serve.service import Service
from tests.support.inside import inside, settings
from tests.support.versions import flip
from tests.support.workspace import make_workspace


def test_a_service_that_cannot_load_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_workspace(tmp_path, num_identities=2)
    flip(made.folder, "model/test/model.safetensors")
    pools: list[PhotoPool] = []
    close = PhotoPool.close
    monkeypatch.setattr(PhotoPool, "close", lambda pool: (pools.append(pool), close(pool))[1])
    with pytest.raises(ValueError, match="No version of .* can be served.*is not the file that was sealed"):
        asyncio.run(Service.open(settings(made)))
    assert [pool.num_alive for pool in pools] == [0]


def test_the_first_photo_waits_for_no_detector(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)

    async def work() -> None:
        async with inside(made) as (service, _):
            kind = service.versions.current.look().kind
            assert [kind in handle._kinds for handle in service.photos._idle] == [True]

    asyncio.run(work())


def test_places_come_free_however_a_query_ends(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)

    async def work() -> None:
        async with inside(made, max_queue=1, timeout_s=0.1) as (service, _):
            for error in (KeyError(), Refusal("no-face", "")):
                with pytest.raises(type(error)):
                    async with service.place():
                        with pytest.raises(Refusal, match="places"):
                            service.check_room()
                        raise error
            with pytest.raises(Refusal) as late:
                async with service.place():
                    await asyncio.sleep(5)
            assert late.value.reason == "timeout"
            service.check_room()

    asyncio.run(work())
