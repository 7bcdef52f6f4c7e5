"""The same for programs that do other things meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serve.client import ApiError, AsyncClient
from serve.client.patience import Patience
from tests.support.listening import listening
from tests.support.workspace import make_workspace
from tests.unit.serve.client.test_blocking import full

__all__ = ["full"]


def test_many_questions_at_once(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)
    (image_id, path), *_ = made.photos.items()

    async def ask(address: str) -> None:
        async with AsyncClient(address) as client:
            answers = await asyncio.gather(*(client.search(path, k=1) for _ in range(8)))
            assert {answer.results[0].image_id for answer in answers} == {image_id}
            assert [one.image_id async for one in client.every_image()] == sorted(made.photos)
            assert (await client.verify(path, path)).score == pytest.approx(1, abs=1e-5)
            with pytest.raises(ApiError, match="not-an-image"):
                await client.faces(b"no photo")

    with listening(workspace=str(made.folder)) as at:
        asyncio.run(ask(at.address))


def test_it_comes_back_when_it_was_told_to(full: str) -> None:
    async def ask() -> None:
        async with AsyncClient(full, patience=Patience(retries=2)) as client:
            assert (await client.livez()).status == "ok"

    asyncio.run(ask())
