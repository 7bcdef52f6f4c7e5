"""A photo's bytes, and those of the next ones: what fails is said of the right photo, at its turn."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data import reading
from retrieval.data.reading import Ahead
from retrieval.images.pixels import BadImage
from tests.support.failing_storage import DOWN, Storage

ROOT = Path(__file__).resolve().parents[3]


def read_from(storage: Storage, monkeypatch: pytest.MonkeyPatch, size: int = 5, source: Path = ROOT) -> bytes:
    """What `read` gives."""
    monkeypatch.setattr(reading, "open_uri", lambda source, uri: (storage, uri))
    return reading.read(Folder.of(source), "a.jpg", size)


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


def test_a_file_of_too_many_bytes_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(b"photo")
    with pytest.raises(BadImage, match="too-many-bytes: 268435457 bytes, the limit is 268435456"):
        read_from(storage, monkeypatch, (256 << 20) + 1)
    with pytest.raises(BadImage, match="missing: named by the source's lists"):
        read_from(storage, monkeypatch, -1)
    assert storage.asked == 0
    assert read_from(storage, monkeypatch, 256 << 20) == b"photo"


def rows_of(folder: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Plan rows of files of so many bytes each, that are there."""
    folder.mkdir(exist_ok=True)
    for number, size in enumerate(sizes):
        (folder / f"{number}.jpg").write_bytes(bytes([number % 256]) * size)
    return [{"uri": f"{number}.jpg", "size": size} for number, size in enumerate(sizes)]


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What will be read, and by which thread."""
    asked, inner = list[tuple[str, str]](), reading.read

    def read(source: Folder, uri: str, size: int) -> bytes:
        asked.append((uri, threading.current_thread().name))
        return inner(source, uri, size)

    monkeypatch.setattr(reading, "read", read)
    return asked


@pytest.mark.parametrize("sizes", [[5], [3] * 100, [9, 70, 2, 40, 3, 1, 80], list(range(60, 1, -1))])
def test_each_photo_has_its_own_bytes_whatever_was_read_before(
    sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_AHEAD", 64)
    monkeypatch.setattr(reading, "_TOGETHER_BYTES", 32)
    rows = rows_of(tmp_path / "photos", sizes)
    left = {at for at in range(len(rows)) if at % 5 == 3}
    with Ahead(Folder.of(tmp_path / "photos"), rows, leave_out=left) as ahead:
        for at, row in enumerate(rows):
            if at not in left:
                assert ahead.read(at) == bytes([at % 256]) * row["size"]
                assert ahead.read(at) == bytes([at % 256]) * row["size"]  # as when its work is tried again


def test_photos_are_read_before_their_turn_and_no_more_bytes_than_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_AHEAD", 100)
    monkeypatch.setattr(reading, "_TOGETHER", 2)
    rows, asked = rows_of(tmp_path / "photos", [10] * 30), watched(monkeypatch)
    with Ahead(Folder.of(tmp_path / "photos"), rows) as ahead:
        ahead.read(0)
        until = time.monotonic() + 10
        while len(asked) < 12 and time.monotonic() < until:
            time.sleep(0.01)
    assert len({uri for uri, _ in asked}) == len(asked) == 12  # ten more than the two that came with the first


def test_a_photo_larger_than_what_may_be_held_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_AHEAD", 10)
    rows, asked = rows_of(tmp_path / "photos", [50, 1, 60, 2]), watched(monkeypatch)
    with Ahead(Folder.of(tmp_path / "photos"), rows, leave_out={1}) as ahead:
        assert [len(ahead.read(at)) for at in (0, 2, 3)] == [50, 60, 2]
    assert [uri for uri, _ in asked] == ["0.jpg", "2.jpg", "3.jpg"]  # each once, and none that is left out
    assert all(thread.startswith("read-ahead") for _, thread in asked)


def test_what_fails_before_its_turn_is_asked_for_again_and_said_of_that_photo(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "photos", [4, 4, 4, 4])
    (tmp_path / "photos" / "1.jpg").unlink()
    (tmp_path / "photos" / "2.jpg").rename(tmp_path / "late.jpg")
    rows[3]["size"] = -1
    with Ahead(Folder.of(tmp_path / "photos"), rows) as ahead:
        assert ahead.read(0) == bytes([0]) * 4  # by now all of this bundle were tried
        with pytest.raises(BadImage, match="missing: it was there"):
            ahead.read(1)
        (tmp_path / "late.jpg").rename(tmp_path / "photos" / "2.jpg")
        assert ahead.read(2) == bytes([2]) * 4
        with pytest.raises(BadImage, match="missing: named by"):
            ahead.read(3)


def test_threads_end_with_the_part(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Ahead(Folder.of(tmp_path / "p"), rows_of(tmp_path / "p", [3] * 50)) as ahead:
        ahead.read(0)
        raise RuntimeError
    assert not [each.name for each in threading.enumerate() if each.name.startswith("read-ahead")]
