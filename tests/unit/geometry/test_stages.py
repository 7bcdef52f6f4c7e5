"""What stages leave on storage comes back as it was, the links of the rounds asked for in their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder, part_name
from retrieval.geometry import stages
from retrieval.geometry.features import Features


def features_of(num: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    return Features(
        keypoints=rng.uniform(0, 99, (num, 4)).astype(np.float32),
        descriptors=rng.integers(0, 256, (num, 128)).astype(np.uint8),
        colours=rng.integers(0, 256, (num, 3)).astype(np.uint8),
        width=100 + seed,
        height=50 + seed,
    )


def test_features_come_back_from_storage(tmp_path: Path) -> None:
    out = Folder.of(tmp_path)
    made = {"b": features_of(5, 0), "a": features_of(0, 1), "c": features_of(2, 2)}
    for part, names in ((0, "ba"), (1, "c")):
        table = stages.features_table(list(names), [made[name] for name in names], range(7, 7 + len(names)))
        assert table["num"].to_pylist() == [len(made[name].keypoints) for name in names]
        out.write_table(f"features/{part_name(part)}", table)
    for part, names in ((0, "ba"), (1, "c")):
        read = dict(stages.features_of_part(out, part))
        assert list(read) == list(names)
        for name, found in read.items():
            for field in ("keypoints", "descriptors", "colours"):
                there, here = getattr(found, field), getattr(made[name], field)
                assert there.dtype == here.dtype and np.array_equal(there, here), field
            assert (found.width, found.height) == (made[name].width, made[name].height)


def linked(pairs: list[tuple[int, int]], num_inliers: int = 30) -> pa.Table:
    rows = [{"a": a, "b": b, "num_inliers": num_inliers, "matches": b"12345678"} for a, b in pairs]
    return pa.Table.from_pylist(rows, stages.LINKS)


def test_links_of_the_first_rounds_come_in_the_order_of_their_blocks(tmp_path: Path) -> None:
    out = Folder.of(tmp_path)
    assert not len(stages.links_of_rounds(out, 3)) and "matches" not in stages.links_of_rounds(out, 3).column_names
    out.write_table("links/round-1/block-00000.parquet", linked([(4, 5)]))
    out.write_table("links/round-0/block-00001.parquet", linked([(2, 3)]))
    out.write_table("links/round-0/block-00000.parquet", linked([(0, 1), (0, 2)]))
    out.write_table("links/round-10/block-00000.parquet", linked([(8, 9)]))
    of_round = {
        rounds: [tuple(row.values()) for row in stages.links_of_rounds(out, rounds).to_pylist()] for rounds in (0, 1, 2)
    }
    first = [(0, 1, 30, 0, 0, 0), (0, 2, 30, 0, 0, 1), (2, 3, 30, 0, 1, 0)]  # a, b, inliers, round, block, row of it
    assert of_round == {0: [], 1: first, 2: [*first, (4, 5, 30, 1, 0, 0)]}
    assert stages.links_name(1, 0) == "links/round-1/block-00000.parquet"


@pytest.mark.parametrize(("start", "num"), [(0, 10), (3, 4), (4, 2), (9, 5), (10, 3), (0, 0), (7, 1)])
def test_rows_are_read_whatever_groups_they_lie_in(start: int, num: int, tmp_path: Path) -> None:
    out, rows = Folder.of(tmp_path), list(range(10))
    out.write_table("t.parquet", pa.table({"x": rows}), row_group_size=3)
    assert stages.read_rows(out, "t.parquet", start, num)["x"].to_pylist() == rows[start : start + num]


def test_each_round_has_a_name() -> None:
    assert [stages.pairs_name(round_) for round_ in (0, 2)] == ["pairs/round-0.parquet", "pairs/round-2.parquet"]
