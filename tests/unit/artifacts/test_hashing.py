"""Names made of content: equal for equal content, different for anything else, and the same tomorrow."""

from __future__ import annotations

import errno
import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from retrieval.artifacts import folder as artifacts_folder
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, draw_key, hash_file, plain
from retrieval.artifacts.storage.patience import patience


@dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclass(frozen=True)
class Config:
    where: Path = Path("a/b")
    inner: Inner = field(default_factory=Inner)
    pair: tuple[int, ...] = (1, 2)


def test_settings_become_plain_values() -> None:
    expected = {"where": "a/b", "inner": {"size": 3}, "pair": [1, 2]}
    assert plain(Config()) == expected
    assert list(plain(Config())) == sorted(expected), "in one order, whatever the class's"
    assert plain({"x": (1, None, True), "y": Path("p")}) == {"x": [1, None, True], "y": "p"}


def test_digests_do_not_depend_on_the_order_of_keys_and_on_all_else() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    different = [{}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": [1]}, {"a": [1, 2]}, {"a": [2, 1]}, {"a": None}]
    assert len({digest(value) for value in different}) == len(different)
    assert digest({"a": Path("x")}) == digest({"a": "x"})
    # Names on storage must not change: the sha256 of the text {"a": 1, "b": 2}
    assert digest({"b": 2, "a": 1}) == hashlib.sha256(b'{"a": 1, "b": 2}').hexdigest()


def test_a_file_s_hash_is_of_all_its_bytes(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    for size in (0, 3, (1 << 20) - 1, 1 << 20, (2 << 20) + 5):  # less, as much and more than is read at once
        data = bytes(range(251)) * (size // 251 + 1)
        folder.write_bytes("file", data[:size])
        assert hash_file(folder, "file") == hashlib.sha256(data[:size]).hexdigest()


def test_draws_depend_on_every_name_and_on_where_one_ends() -> None:
    keys = [draw_key(*names) for names in ((0, "a", "b"), (1, "a", "b"), (0, "ab"), (0, "a", "c"), (0, "b", "a"), (0,))]
    assert len(set(keys)) == len(keys)
    assert draw_key(0, "a") == draw_key("0", "a") == hashlib.sha256(b"0\0a").digest()


def test_storage_that_breaks_off_in_the_midst_of_a_file_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() and not broken:
                broken.append(self.tell())
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    class Store:
        def open_input_stream(self, path: str) -> Stream:
            return Stream(content)

    broken: list[int] = []
    content = bytes(range(256)) * 8192
    monkeypatch.setattr(artifacts_folder, "_open", lambda uri: (Store(), "bucket"))
    with patience(30):
        assert hash_file(Folder("s3://bucket"), "a") == hashlib.sha256(content).hexdigest()
    assert broken == [1 << 20]
