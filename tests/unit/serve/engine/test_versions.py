"""A request sees one version from end to end; the old one is closed when its last request has ended, and no sooner."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Any, cast

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import history
from serve.engine.loading import load
from serve.engine.version import Version
from serve.engine.versions import OneVersion, Versions
from tests.support.inside import settings
from tests.support.waiting import MOST_S, until
from tests.support.workspace import make_workspace


class Plain:
    """Stands for a version where only its life matters."""

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, threading.Event()

    def close(self) -> None:
        assert not self.closed.is_set(), "closed twice"
        self.closed.set()


def plain(name: str) -> Version:
    return cast(Version, Plain(name))


def closed(version: Version, within: float = MOST_S) -> bool:
    return cast(Plain, version).closed.wait(within)


def test_a_request_sees_one_version_and_the_next_request_the_new_one() -> None:
    old, new = plain("old"), plain("new")
    versions = Versions(old)
    with versions.request():
        assert versions.current is old
        versions.swap(new)
        assert versions.current is old
        with versions.request():
            assert versions.current is new
        assert versions.current is old and versions.num_open == 2 and not closed(old, 0.05)
    assert closed(old) and versions.num_open == 1 and versions.current is new
    versions.close()
    assert closed(new)


def test_a_request_takes_its_version_at_its_first_look() -> None:
    old, new = plain("old"), plain("new")
    versions = Versions(old)
    with versions.request():
        versions.swap(new)
        assert closed(old), "nobody had looked at it"
        assert versions.current is new


def test_all_tasks_and_threads_of_a_request_see_its_version() -> None:
    old, new = plain("old"), plain("new")
    versions, seen = Versions(old), []

    async def handler() -> None:
        seen.append(await asyncio.to_thread(lambda: versions.current))
        versions.swap(new)

        async def part() -> Version:
            return versions.current

        seen.extend(await asyncio.gather(part(), part(), asyncio.to_thread(lambda: versions.current)))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await handler()

    asyncio.run(OneVersion(app, versions)({"type": "http"}, cast(Any, None), cast(Any, None)))
    assert seen == [old] * 4 and versions.current is new and closed(old)


def test_a_request_that_fails_or_leaves_lets_go_too() -> None:
    old = plain("old")
    versions = Versions(old)
    with pytest.raises(KeyError), versions.request():
        assert versions.current is old
        raise KeyError
    versions.swap(plain("new"))
    assert closed(old)


def test_what_is_held_is_closed_after_the_last_who_holds_it() -> None:
    old, new = plain("old"), plain("new")
    versions = Versions(old)
    with versions.holding() as first:
        versions.swap(new)
        with versions.holding(first) as again, versions.holding() as other:
            assert (again, other) == (old, new)
        assert not closed(old, 0.05)
    assert closed(old) and not closed(new, 0.05)


def test_calls_after_a_request_come_when_it_has_ended_while_its_version_is_held() -> None:
    old = plain("old")
    versions, order = Versions(old), []
    versions.after_this_request(lambda: order.append("nobody's"))
    with versions.request():
        assert versions.current is old
        versions.after_this_request(lambda: order.append(versions.num_open))
        versions.swap(plain("new"))
        order.append("answer")
    assert order == ["answer", 2]


def test_a_version_that_comes_after_the_end_is_closed_at_once() -> None:
    first, late = plain("first"), plain("late")
    versions = Versions(first)
    versions.close()
    versions.swap(late)
    assert closed(first) and closed(late)


def test_many_threads_and_many_swaps_leave_one_version_open() -> None:
    made = [plain(str(number)) for number in range(40)]
    versions, stop, odd = Versions(made[0]), threading.Event(), []

    def client() -> None:
        while not stop.is_set():
            with versions.request():
                version = versions.current
                time.sleep(0)
                if versions.current is not version or cast(Plain, version).closed.is_set():
                    odd.append(version)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for version in made[1:]:
        versions.swap(version)
        time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    assert odd == [] and all(closed(version) for version in made[:-1])
    assert versions.num_open == 1 and not closed(made[-1], 0.05)


def mapped(folder: Folder) -> bool:
    return any(folder.path in line for line in Path("/proc/self/maps").read_text().splitlines())


def num_threads(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_a_closed_version_gives_back_its_memory_its_maps_and_its_threads(tmp_path: Path) -> None:
    made = make_workspace(tmp_path)
    args = settings(made)
    gc.disable()  # what only the collector would find, a service would hold for minutes
    try:
        before = num_threads("embed") + num_threads("search")
        version = load(args, history(made.folder)[0])
        assert mapped(version.pair.index)

        async def ask() -> None:
            jpeg = version.gallery.jpeg_at(0)
            assert len(await version.search((await version.embed(jpeg))[None], 3)) == 1

        asyncio.run(ask())
        parts = [weakref.ref(part) for part in (version.gallery, version.gallery.searcher, version.embedder)]
        index = version.pair.index
        version.close()
        until(lambda: [part() for part in parts] == [None] * 3)
        assert not mapped(index)
        until(lambda: num_threads("embed") + num_threads("search") == before)
    finally:
        gc.enable()
    assert os.path.exists(index.path)
