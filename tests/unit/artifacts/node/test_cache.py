"""A node's copies: one of each, whole or not there, checked, kept while in use, let go oldest first."""

from __future__ import annotations

import fcntl
import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from retrieval.artifacts import folder as artifacts_folder
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest, seal
from retrieval.artifacts.node.cache import LIMIT, Kept, NodeCache, own_folder

SIZE = 10_000


def stored(folder: Folder, salt: str = "", size: int = SIZE) -> Folder:
    """A sealed index of two files, one in a folder of its own."""
    folder.fs.create_dir(f"{folder.path}/deep", recursive=True)  # which a bucket does not need
    folder.write_bytes("ids.parquet", f"ids {salt}".encode())
    folder.write_bytes("deep/shard-0.faiss", (salt.encode() or b"x") * size)
    seal(folder, kind="index", config={"salt": salt}, inputs={}, counts={})
    return folder


def writes(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """s3://bucket: pyarrow's own file system over a folder, which is no path on this disk to those who ask."""
    fs = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    real = artifacts_folder._open
    (tmp_path / "bucket").mkdir()
    monkeypatch.setattr(
        artifacts_folder, "_open", lambda uri: (fs, uri.removeprefix("s3://")) if uri.startswith("s3:") else real(uri)
    )
    monkeypatch.setattr(artifacts_folder, "open_address", lambda _, puts: fs)
    return Folder.of("s3://bucket")


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(root=tmp_path / "copies")


def names(cache: NodeCache) -> list[str]:
    """What lies there, locks aside."""
    return sorted(path.name for path in cache.root.iterdir() if path.suffix != ".lock")


def test_a_folder_in_a_store_is_copied_whole_under_its_fingerprint_and_once(bucket: Folder, cache: NodeCache) -> None:
    there = stored(bucket / "index/1")
    with cache.folder(there) as kept:
        assert kept.folder.is_local and kept.folder.list() == there.list()
        for name in there.list():
            assert kept.folder.read_bytes(name) == there.read_bytes(name)
        print_ = read_manifest(there).fingerprint
        assert read_manifest(kept.folder).fingerprint == print_ and kept.path.name == f"index-{print_[:32]}"
        made = kept.path.stat().st_ino
        with cache.folder(there) as again:
            assert again.path.stat().st_ino == made
    assert names(cache) == [kept.path.name]


def test_what_lies_on_a_disk_is_used_where_it_is_unless_it_is_told_to_be_copied(
    tmp_path: Path, cache: NodeCache
) -> None:
    for where in (str(tmp_path / "w"), f"file://{tmp_path}/w2"):
        there = stored(Folder.of(where), salt=where[-1])
        with cache.folder(there) as kept:
            assert kept.folder == Folder.of(there.path)
        assert not cache.root.exists() or there.path not in names(cache)
        with cache.folder(there, also_local=True) as kept:
            assert kept.path.parent == cache.root and kept.folder.list() == there.list()


@pytest.mark.parametrize("name", ["ids.parquet", "deep/shard-0.faiss"])
def test_a_file_that_is_not_what_was_sealed_is_refused_and_nothing_stays(
    bucket: Folder, cache: NodeCache, name: str
) -> None:
    there = stored(bucket / "index/1")
    content = there.read_bytes(name)
    there.write_bytes(name, content[:-1] + b"?")
    with pytest.raises(ValueError, match=f"s3://bucket/index/1/{name} is not the file that was sealed"):
        cache.folder(there)
    assert names(cache) == []
    there.write_bytes(name, content)
    cache.folder(there).close()
    there.remove(name)
    other = NodeCache(root=cache.root.parent / "others")
    with pytest.raises(ValueError, match=f"lacks {name}, which was sealed there"):
        other.folder(there)
    with pytest.raises(ValueError, match="No sealed artefact at s3://bucket/none"):
        other.folder(bucket / "none")


def test_the_oldest_that_nobody_uses_go_first(bucket: Folder, tmp_path: Path) -> None:
    cache = NodeCache(root=tmp_path / "copies", limit=3 * SIZE + 2000)
    folders = [stored(bucket / f"index/{salt}", salt) for salt in "abcd"]
    paths = [f"index-{read_manifest(folder).fingerprint[:32]}" for folder in folders]
    used = cache.folder(folders[0])
    for folder in folders[1:3]:
        cache.folder(folder).close()
    cache.folder(folders[1]).close()  # used again: the third is the one that was used longest ago
    cache.folder(folders[3]).close()
    assert names(cache) == sorted([paths[0], paths[1], paths[3]])
    used.close()
    cache.folder(folders[2]).close()
    assert names(cache) == sorted([paths[1], paths[2], paths[3]])


def test_what_is_in_use_stays_though_there_is_no_room(bucket: Folder, tmp_path: Path) -> None:
    cache = NodeCache(root=tmp_path / "copies", limit=SIZE + 2000)
    first, second = (stored(bucket / f"index/{salt}", salt) for salt in "ab")
    with cache.folder(first) as kept:
        with pytest.raises(ValueError, match=r"no room for the index .*0\.000 GB may be used .* are in use. Free some"):
            cache.folder(second)
        assert kept.folder.list() == first.list() and names(cache) == [kept.path.name]
    with pytest.raises(ValueError, match=rf"copies of this node may take .* together \(\${LIMIT}\)"):
        NodeCache(root=cache.root, limit=SIZE).folder(second)
    assert len(names(cache)) == 1, "what cannot fit pushes nobody out"
    cache.folder(second).close()
    assert len(names(cache)) == 1


def test_a_use_ends_when_nobody_holds_it(bucket: Folder, tmp_path: Path) -> None:
    cache = NodeCache(root=tmp_path / "copies", limit=SIZE + 2000)
    kept = cache.folder(stored(bucket / "index/a", "a"))
    del kept
    cache.folder(stored(bucket / "index/b", "b")).close()
    assert len(names(cache)) == 1


def test_one_copies_and_the_others_wait(cache: NodeCache) -> None:
    calls = []

    def slowly(path: Path) -> None:
        calls.append(path)
        time.sleep(0.05)
        path.write_bytes(b"copy")

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: cache.keep("a.arrow", slowly, 4, "photos"), range(6)))
    assert len(calls) == 1 and {kept.path.read_bytes() for kept in found} == {b"copy"}


def test_who_comes_late_to_make_it_shares_what_is_in_use(cache: NodeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw that nothing is there; before it is alone, another has made the copy and holds it, for hours perhaps."""
    real, in_use, calls = fcntl.flock, list[Kept](), itertools.count()

    def slowly(lock: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and next(calls) == 0:
            real(lock, fcntl.LOCK_UN)  # as the kernel does on the way from shared to alone
            in_use.append(cache.keep("one", writes(b"x"), 1, "one"))
        real(lock, operation)

    found = []
    late = threading.Thread(target=lambda: found.append(cache.keep("one", writes(b"y"), 1, "one")), daemon=True)
    monkeypatch.setattr(fcntl, "flock", slowly)
    late.start()
    late.join(20.0)
    assert found and found[0].path.read_bytes() == b"x"


def hold(root: Path, name: str, ready: multiprocessing.synchronize.Event) -> None:
    """Half a copy, for ever."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / "half").write_bytes(b"ha")
        ready.set()
        time.sleep(600)

    NodeCache(root=root).keep(name, make, 2, "it")


def test_who_dies_while_copying_leaves_nothing_in_the_way(cache: NodeCache) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    worker = spawn.Process(target=hold, args=(cache.root, "a", ready))
    worker.start()
    assert ready.wait(60) and worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    assert names(cache) == [f"a.tmp-{worker.pid}"]
    with cache.keep("a", writes(b"whole"), 5, "it") as kept:
        assert kept.path.read_bytes() == b"whole" and names(cache) == ["a"]


def test_a_copy_that_fails_leaves_nothing_and_is_made_by_the_next(cache: NodeCache) -> None:
    def broken(path: Path) -> None:
        path.mkdir()
        (path / "half").write_bytes(b"ha")
        raise ConnectionError("the store is away")

    with pytest.raises(ConnectionError, match="is away"):
        cache.keep("a", broken, 2, "it")
    assert names(cache) == []
    assert cache.keep("a", writes(b"whole"), 5, "it").path.read_bytes() == b"whole"


def test_a_disk_that_gets_full_is_told_in_one_sentence_and_holds_no_half(bucket: Folder, cache: NodeCache) -> None:
    there = stored(bucket / "index/1", size=100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ValueError, match=r"no room for the index in .*copies: it needs 0\.000 GB.*RETRIEVAL_CACHE"):
            cache.folder(there)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handled)
    assert names(cache) == []
    with cache.folder(there) as kept:
        assert kept.folder.list() == there.list()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a disk of 1 MB can only be had by root, as CI is: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_small_disk_without_a_limit_lets_the_oldest_go_and_says_when_that_is_not_enough(
    bucket: Folder, small_disk: Path
) -> None:
    cache = NodeCache(root=small_disk / "copies")
    first, second, large = (
        stored(bucket / f"i/{salt}", salt, 1000 * kb) for salt, kb in (("a", 600), ("b", 700), ("c", 2000))
    )
    with cache.folder(first) as kept:
        with pytest.raises(ValueError, match="no room for the index"):
            cache.folder(second)
        assert names(cache) == [kept.path.name]
    with cache.folder(second) as kept:
        assert names(cache) == [kept.path.name]
    with pytest.raises(ValueError, match="no room for the index"):
        cache.folder(large)
    assert not list(cache.root.glob("*.tmp-*"))


def test_the_limit_and_the_folder_are_settings_or_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path))
    monkeypatch.delenv(LIMIT, raising=False)
    assert NodeCache.of_node() == NodeCache(root=tmp_path / "copies", limit=None)
    assert own_folder("copies").stat().st_mode & 0o077 == 0
    monkeypatch.setenv(LIMIT, "1.5")
    assert NodeCache.of_node() == NodeCache(root=tmp_path / "copies", limit=1_500_000_000)
    assert NodeCache.of_node(tmp_path / "x", 0.5) == NodeCache(root=tmp_path / "x", limit=500_000_000)
    for odd in ("0", "-1", "much", "nan"):
        monkeypatch.setenv(LIMIT, odd)
        with pytest.raises(ValueError, match=f"{LIMIT} is '{odd}', expected a number of gigabytes above 0"):
            NodeCache.of_node()
