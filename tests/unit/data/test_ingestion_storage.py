"""Storage that fails rejects no photo, and a file that cannot be read is told from it."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.storage.failures import Outage
from retrieval.artifacts.storage.patience import patience
from retrieval.data import ingestion
from retrieval.data.catalog import plan_collection
from retrieval.data.ingestion import ingest_part
from retrieval.images.pixels import BadImage, encode_jpeg
from retrieval.images.settings import PrepareConfig
from tests.support.photos import portrait

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[3]
HAAR = PrepareConfig(detector="haar")


def planned(source: Path, out: Path, part_size: int | None = 5) -> dict[str, Any]:
    config = {"prepare": plain(HAAR), "part_size": part_size}
    return plan_collection(str(out), source=str(source), layout="lfw", config=config, part_size=part_size)


class Storage:
    """In the place of a source's file system: fails in turn as told, then gives `data`."""

    def __init__(self, data: bytes, *errors: OSError) -> None:
        self.data, self.errors, self.asked = data, list(errors), 0

    def open_input_stream(self, path: str) -> io.BytesIO:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return io.BytesIO(self.data)


def read_from(storage: Storage, monkeypatch: pytest.MonkeyPatch, size: int = 5, source: Path = ROOT) -> bytes:
    """What `_read` gives."""
    monkeypatch.setattr(ingestion, "open_uri", lambda source, uri: (storage, uri))
    return ingestion._read(Folder.of(source), "a.jpg", size)


DOWN = OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7, Could not connect to server")


@pytest.mark.parametrize("error", [DOWN, OSError(errno.EIO, "Input/output error"), ConnectionResetError("reset")])
def test_storage_that_fails_is_nobody_s_photo(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(error)) as caught:
        read_from(Storage(b"photo", error), monkeypatch)
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "reason"), [(PermissionError("no"), "not-readable"), (FileNotFoundError("gone"), "missing")]
)
def test_what_is_wrong_with_one_file_is_said_of_that_file(
    error: OSError, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(b"photo", error)
    with pytest.raises(BadImage) as caught:
        read_from(storage, monkeypatch)
    assert (caught.value.reason, storage.asked) == (reason, 1)


@pytest.mark.parametrize("empty", [True, False])
def test_where_the_whole_source_is_gone_no_photo_is_missing(
    empty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "mount"  # what a mount that went away leaves: an empty folder, or none
    if empty:
        mount.mkdir()
    with pytest.raises(ConnectionError, match="holds nothing any more"):
        read_from(Storage(b"photo", FileNotFoundError("gone")), monkeypatch, source=mount)


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
        patch.setattr(ingestion, "open_uri", lambda source, uri: (storage, uri))
        with patience(30):
            result = ingest_part(out, 0, Folder(plan["root"]), HAAR)
    assert (result.stored, result.rejected, storage.asked) == (3, {}, 5)
    out.remove("images/part-00000.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(ingestion, "open_uri", lambda source, uri: (Storage(b"", *[DOWN] * 99), uri))
        with patience(0.1), pytest.raises(Outage, match="preparing the photo 0.png .* no photo was rejected for it"):
            ingest_part(out, 0, Folder(plan["root"]), HAAR)
    assert not out.exists("images/part-00000.parquet")
    again = ingest_part(out, 0, Folder(plan["root"]), HAAR)
    assert (again.stored, again.rejected, again.resumed) == (3, {}, False)


def test_a_file_of_too_many_bytes_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(b"photo")
    with pytest.raises(BadImage, match="too-many-bytes: 268435457 bytes, the limit is 268435456"):
        read_from(storage, monkeypatch, (256 << 20) + 1)
    with pytest.raises(BadImage, match="missing: named by the source's lists"):
        read_from(storage, monkeypatch, -1)
    assert storage.asked == 0
    assert read_from(storage, monkeypatch, 256 << 20) == b"photo"
