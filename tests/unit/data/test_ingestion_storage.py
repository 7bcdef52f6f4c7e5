"""Storage that fails rejects no photo of a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.storage.failures import Outage
from retrieval.artifacts.storage.patience import patience
from retrieval.data import reading
from retrieval.data.catalog import plan_collection
from retrieval.data.ingestion import ingest_part
from retrieval.images.pixels import encode_jpeg
from retrieval.images.settings import PrepareConfig
from tests.support.failing_storage import DOWN, Storage
from tests.support.photos import portrait

pytestmark = pytest.mark.usefixtures("one_thread")

HAAR = PrepareConfig(detector="haar")


def planned(source: Path, out: Path, part_size: int | None = 5) -> dict[str, Any]:
    config = {"prepare": plain(HAAR), "part_size": part_size}
    return plan_collection(str(out), source=str(source), layout="lfw", config=config, part_size=part_size)


def test_a_part_waits_for_storage_and_then_stops_with_nothing_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = tmp_path / "photos", Folder.of(tmp_path / "out")
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.png").write_bytes(encode_jpeg(portrait(number)))
    plan = planned(photos, tmp_path / "out")
    storage = Storage((photos / "1.png").read_bytes(), DOWN, MemoryError())  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(reading, "open_uri", lambda source, uri: (storage, uri))
        with patience(30):
            result = ingest_part(out, 0, Folder(plan["root"]), HAAR)
    assert (result.stored, result.rejected, storage.asked) == (3, {}, 5)
    out.remove("images/part-00000.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(reading, "open_uri", lambda source, uri: (Storage(b"", *[DOWN] * 99), uri))
        with patience(0.1), pytest.raises(Outage, match="preparing the photo 0.png .* no photo was rejected for it"):
            ingest_part(out, 0, Folder(plan["root"]), HAAR)
    assert not out.exists("images/part-00000.parquet")
    again = ingest_part(out, 0, Folder(plan["root"]), HAAR)
    assert (again.stored, again.rejected, again.resumed) == (3, {}, False)
