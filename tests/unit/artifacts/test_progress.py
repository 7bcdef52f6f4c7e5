"""Progress: whoever does long work tells of each item when it is done, not before."""

from __future__ import annotations

from retrieval.artifacts.progress import counted, silent


def test_an_item_counts_once_it_is_done() -> None:
    told: list[tuple[str, int, int]] = []
    seen = []
    for item in counted(["a", "b", "c"], "letters", lambda *word: told.append(word)):
        seen.append((item, len(told)))
    assert seen == [("a", 0), ("b", 1), ("c", 2)]
    assert told == [("letters", 1, 3), ("letters", 2, 3), ("letters", 3, 3)]


def test_nothing_is_told_of_nothing_and_nobody_needs_to_listen() -> None:
    told: list[tuple[str, int, int]] = []
    assert list(counted([], "letters", lambda *word: told.append(word))) == [] == told
    assert list(counted([1, 2], "numbers", silent)) == [1, 2]
