"""How far two rankings agree, counted over queries and over the replicas that counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.search.agreement import Agreement, read_agreements, write_agreement

ONE, OTHER = "0" * 12, "f" * 12


def ranked(text: str, best: float = 1.0) -> list[tuple[str, float]]:
    return [(name, best - 0.125 * place) for place, name in enumerate(text)]


@pytest.mark.parametrize(
    ("ours", "theirs", "same", "overlap", "difference"),
    [
        (ranked("abc"), ranked("abc"), 1, 1.0, 0.0),
        (ranked("abc"), ranked("acb", 0.75), 1, 1.0, -0.25),
        (ranked("abcd"), ranked("bcxy", 0.5), 0, 0.5, -0.5),
        (ranked("ab"), ranked("cd", 1.5), 0, 0.0, 0.5),
        (ranked("abcdefghij"), ranked("abcde"), 1, 0.5, 0.0),
        (ranked("abcdefghijxyz"), ranked("abcdefghijklm"), 1, 1.0, 0.0),  # ten are compared
    ],
)
def test_one_query(
    ours: list[tuple[str, float]], theirs: list[tuple[str, float]], same: int, overlap: float, difference: float
) -> None:
    found = Agreement.of(ours, theirs)
    assert found == Agreement(queries=1, same_first=same, overlap=overlap, score_difference=difference)


def test_counts_add_up_and_are_told_a_query() -> None:
    total = Agreement.of(ranked("ab"), ranked("ab")) + Agreement.of(ranked("ab"), ranked("bc", 0.5))
    assert total.queries == 2
    shares = {"queries": 2.0, "same_first": 0.5, "overlap@10": 0.75, "score_difference": -0.25}
    assert total.shares() == shares and Agreement().shares() == {}


def test_what_every_replica_counted_last_is_summed(tmp_path: Path) -> None:
    workspace, one = Folder.of(tmp_path), Agreement.of(ranked("ab"), ranked("ab"))
    assert read_agreements(workspace) == {}
    write_agreement(workspace, ONE, OTHER, "Search#a/1", one)
    write_agreement(workspace, ONE, OTHER, "Search#a/1", one + one)
    write_agreement(workspace, ONE, OTHER, "Search#b2", one)
    write_agreement(workspace, OTHER, ONE, "Search#b2", one)
    assert read_agreements(workspace) == {(ONE, OTHER): one + one + one, (OTHER, ONE): one}
    assert all("/" not in name and "#" not in name for name in (workspace / "agreement").list())
    for name, text in (("other.json", "{}"), (f"{ONE}-{OTHER}-x.json", '{"queries": 1, "more": 2}')):
        (workspace / "agreement").write_bytes(name, text.encode())
        with pytest.raises(ValueError, match=f"agreement/{name} holds no counts of agreement"):
            read_agreements(workspace)
        (workspace / "agreement").remove(name)
