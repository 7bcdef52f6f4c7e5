"""Photos and links by group: each group's own, whatever lies in the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.geometry import stages
from retrieval.geometry.groups import keyed
from retrieval.geometry.groups.keyed import links_of, members_of, write_keyed

NUM = 40


@pytest.fixture(params=[2, 1000])
def out(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Forty photos, and links of two rounds in blocks of nine; few or all rows of a table are read together."""
    monkeypatch.setattr(keyed, "_READ_TOGETHER", request.param)
    folder, rng = Folder.of(tmp_path), np.random.default_rng(0)
    places = {"part": [n % 7 for n in range(NUM)], "row": [100 + n for n in range(NUM)]}
    folder.write_table("photos.parquet", pa.table({"image_id": [f"{n:02d}.jpg" for n in range(NUM)], **places}))
    pairs = sorted({(int(a), int(b)) for a, b in np.sort(rng.integers(0, NUM, (160, 2)), axis=1) if a < b})
    rng.shuffle(pairs)
    for round_, own in enumerate((pairs[:60], pairs[60:])):
        for block, start in enumerate(range(0, len(own), 9)):
            rows = [
                {"a": a, "b": b, "num_inliers": 20, "matches": np.array([[a, b]] * (a + 1), np.int32).tobytes()}
                for a, b in own[start : start + 9]
            ]
            folder.write_table(stages.links_name(round_, block), pa.Table.from_pylist(rows, stages.LINKS))
    return folder


def test_a_group_has_its_photos_and_the_links_between_them(out: Folder) -> None:
    """Photos 0 to 9 are in two groups, the last in none."""
    rng = np.random.default_rng(1)
    groups = {1: set(range(10)), 2: set(range(0, 30, 3)), 7: {int(n) for n in rng.permutation(30)[:12]}, 8: {35}}
    member = [(group, photo) for group, photos in groups.items() for photo in photos]
    rng.shuffle(member)
    links = stages.links_of_rounds(out, 2)
    group, photo = np.array(member).T
    write_keyed(out, group, photo, links)
    pairs = {(row["a"], row["b"]) for row in links.to_pylist()}
    for number in range(10):
        wanted, found = sorted(groups.get(number, ())), members_of(out, number)
        assert found.rows.tolist() == wanted and len(found) == len(wanted)
        assert found.image_ids == [f"{photo:02d}.jpg" for photo in wanted]
        assert found.places == [(photo % 7, 100 + photo) for photo in wanted]
        own = links_of(out, number)
        assert [(a, b) for a, b, _ in own] == sorted(p for p in pairs if set(p) <= groups.get(number, set()))
        assert all(matches.tolist() == [[a, b]] * (a + 1) for a, b, matches in own)
    assert len(links_of(out, 1)) > 5


def test_only_blocks_that_hold_links_of_the_group_are_read(out: Folder) -> None:
    first = stages.links_of_rounds(out, 1).slice(0, 1).to_pylist()[0]
    write_keyed(out, np.array([0, 0]), np.array([first["a"], first["b"]]), stages.links_of_rounds(out, 2))
    for name in (out / "links").list():
        if name != "round-0/block-00000.parquet":
            (out / "links").remove(name)
    assert [(a, b) for a, b, _ in links_of(out, 0)] == [(first["a"], first["b"])]


def test_no_groups_have_nothing(out: Folder) -> None:
    nobody = np.empty(0, np.int64)
    write_keyed(out, nobody, nobody, stages.links_of_rounds(out, 2))
    assert not len(members_of(out, 0)) and links_of(out, 0) == []
