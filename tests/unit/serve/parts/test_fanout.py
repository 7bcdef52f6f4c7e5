"""All parts of an index answer as the index would, or nothing is answered; and it is said which part is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.search.index import Searcher
from serve.parts import fanout
from serve.parts.fanout import Parts, SpreadShards
from serve.parts.messages import IndexName, PartLost
from serve.parts.part import Part
from serve.settings import ServeArgs
from tests.support.parted import Away, PartsHere, parts_here
from tests.support.vectors import clustered, index_of
from tests.support.waiting import until

NUM, PARTS = 90, 3
QUERY = clustered(NUM)[:1]


def name_of(folder: Folder) -> IndexName:
    return IndexName(folder.uri, Searcher.open(folder).manifest.fingerprint)


def tied(num: int) -> np.ndarray:
    """Vectors of which each comes three times: ties at every place."""
    return np.repeat(clustered(num // 3), 3, axis=0)[np.random.default_rng(0).permutation(num)]


@pytest.fixture
def here() -> Iterator[PartsHere]:
    with parts_here(ServeArgs(workspace="w", index_parts=PARTS)) as parts:
        yield parts


@pytest.fixture
def failures() -> list[tuple[int, str]]:
    return []


@pytest.fixture
def parts(here: PartsHere, failures: list[tuple[int, str]], request: pytest.FixtureRequest) -> Iterator[Parts]:
    """Args: param: seconds that a part has to answer; by default so many that only one that hangs is late."""
    made = Parts(here.handles, getattr(request, "param", 60.0), lambda part, why: failures.append((part, why)))
    yield made
    made.close()


@pytest.mark.parametrize("factory", ["Flat", "KDTree", "IVF3,Flat", "HNSW8", "SQ8", "IVF2,PQ8x4"])
def test_spread_over_parts_it_finds_the_same_to_the_last_bit(parts: Parts, tmp_path: Path, factory: str) -> None:
    vectors = tied(NUM)
    folder = index_of(tmp_path / "i", vectors, 7, factory=factory, nprobe=2, train_sample=NUM)
    whole, spread = Searcher.open(folder), Searcher.open(folder, shards=[parts.open(name_of(folder))])
    assert (len(spread), spread.dim) == (NUM, whole.dim)
    queries = np.concatenate([clustered(4, seed=9), vectors[:3]])
    rng = np.random.default_rng(1)
    for share in (None, 0.02, 0.4, 0.9):
        allowed = None if share is None else rng.random(NUM) < share
        for k in (1, 10, NUM + 5):
            want, got = whole.search(queries, k, allowed=allowed), spread.search(queries, k, allowed=allowed)
            assert np.array_equal(want.rows, got.rows) and np.array_equal(want.scores, got.scores)
    rows = rng.integers(0, NUM, 40)
    (shard,) = spread.shards
    if shard.keeps_vectors:
        mine, of = shard.vectors_of(rows)
        assert mine.all() and np.array_equal(of, vectors[rows])
    assert shard.keeps_vectors == (factory in {"Flat", "KDTree", "IVF3,Flat", "HNSW8"})


@pytest.fixture
def opened(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpreadShards:
    monkeypatch.setattr(fanout, "_LOOK_AGAIN_S", 0.02)
    return parts.open(name_of(index_of(tmp_path / "i", clustered(NUM), PARTS)))


@pytest.mark.parametrize("how", ["dies", "raises"])
def test_one_part_that_is_lost_is_never_a_shorter_answer(
    here: PartsHere, parts: Parts, opened: SpreadShards, failures: list[tuple[int, str]], how: Away
) -> None:
    want = opened.search(QUERY, 5)
    here.lose(1, how)
    with pytest.raises(PartLost, match=r"Part 2 of 3 of the index is away: it has gone \(RuntimeError\)") as lost:
        opened.search(QUERY, 5)
    assert lost.value.number == 1 and failures == [(1, "lost")] and parts.num_away == 1
    with pytest.raises(PartLost, match="Part 2 of 3"):
        opened.vectors_of(np.array([0]))
    assert failures == [(1, "lost")], "what is known to be away is not asked"
    here.start(1)
    until(lambda: parts.num_away == 0)
    got = opened.search(QUERY, 5)
    assert np.array_equal(got.rows, want.rows) and np.array_equal(got.scores, want.scores)


@pytest.mark.parametrize("parts", [0.3], indirect=True)
def test_a_part_that_hangs_is_waited_for_once(
    here: PartsHere, parts: Parts, opened: SpreadShards, failures: list[tuple[int, str]]
) -> None:
    here.lose(0, "hangs")
    with pytest.raises(PartLost, match="Part 1 of 3 of the index is away: it gave no answer within 0.3 s"):
        opened.search(QUERY, 1)
    assert failures == [(0, "late")]
    here.asked.clear()
    with pytest.raises(PartLost):
        opened.search(QUERY, 1)
    assert all(method == "hold" for _, method in here.asked)
    here.start(0)
    until(lambda: parts.num_away == 0)
    assert opened.search(QUERY, 1).rows[0, 0] == 0


def test_a_part_that_has_started_again_knows_nothing_and_says_so(
    here: PartsHere, parts: Parts, opened: SpreadShards, failures: list[tuple[int, str]]
) -> None:
    here.start(2)
    with pytest.raises(PartLost, match="Part 3 of 3 of the index is away: its shards are being loaded"):
        opened.search(QUERY, 1)
    assert failures == [(2, "without")]
    until(lambda: parts.num_away == 0)
    assert len(opened.search(QUERY, 4).rows[0]) == 4


def test_nobody_asks_for_what_is_closed(here: PartsHere, parts: Parts, opened: SpreadShards) -> None:
    here.asked.clear()
    parts.wake()
    until(lambda: [method for _, method in here.asked].count("hold") >= PARTS)
    opened.close()
    parts.wake()
    time.sleep(0.1)
    here.asked.clear()
    parts.wake()
    time.sleep(0.1)
    assert here.asked == []


@pytest.mark.parametrize("parts", [0.3], indirect=True)
def test_what_a_part_refuses_and_what_it_cannot_read_are_two_things(
    here: PartsHere, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "_STARTS_S", 1.0)
    few = name_of(index_of(tmp_path / "few", clustered(NUM), 2))
    with pytest.raises(ValueError, match="Part 1 of 3 of the index refuses it: An index of 2 shards") as refused:
        parts.open(few)
    assert not isinstance(refused.value, OSError)
    index = name_of(index_of(tmp_path / "i", clustered(NUM), PARTS))
    here.lose(2, "hangs")
    with pytest.raises(PartLost, match=r"Part 3 of 3 of the index is away: it gave no answer within 1 s"):
        parts.open(index)


def test_who_waits_for_shards_goes_when_the_service_ends(
    here: PartsHere, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, told = threading.Event(), []
    monkeypatch.setattr(Part, "_load", lambda part, index: free.wait(60))
    index = name_of(index_of(tmp_path / "i", clustered(NUM), PARTS))

    def wait() -> None:
        with pytest.raises(PartLost, match="the service ends"):
            parts.open(index)
        told.append(True)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: len(here.asked) > PARTS)
    parts.close()
    waiting.join(30)
    free.set()
    assert told == [True]


def test_questions_of_many_threads_are_answered_each_by_its_own(opened: SpreadShards) -> None:
    vectors, wrong = clustered(NUM), []

    def ask(row: int) -> None:
        if opened.search(vectors[row], 1).rows.tolist() != [[row]]:
            wrong.append(row)

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(0, NUM, 3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []


def test_a_query_of_another_length_is_the_asker_s_fault(opened: SpreadShards) -> None:
    with pytest.raises(ValueError, match="dimensional"):
        opened.search(np.ones((1, 3), np.float32), 1)
    assert opened.away == {}
