"""A benchmark scored from files equals the same scored from memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.evaluation import revisited
from retrieval.evaluation.revisited import in_blocks
from retrieval.evaluation.variants import distractor_blocks, gallery_blocks, gallery_names, read_queries, variants
from retrieval.search.settings import ExpansionConfig
from tests.support.benchmark import NUM, QUERIES, stored, truth, unit, write

EXTRA = 9
NONE = ExpansionConfig()


def slow_expanded(queries: np.ndarray, vectors: np.ndarray, num: int, own: bool = False) -> np.ndarray:
    out = []
    for number, query in enumerate(queries.astype(np.float64)):
        order = [row for row in np.argsort(-(vectors @ query)) if not (own and row == number)]
        total = query + sum(max(query @ vectors[row], 0) ** 3 * vectors[row] for row in order[:num])
        out.append(total / np.linalg.norm(total))
    return np.array(out, np.float32)


def test_distractors_are_streamed_and_expand_queries(tmp_path: Path) -> None:
    read, extra = truth(), unit(EXTRA, 3)
    folder = stored(read, tmp_path / "e")
    others = [
        write(tmp_path / f"d{number}", {f"x{row}": extra[row] for row in rows})
        for number, rows in enumerate((range(4), range(4, EXTRA)))
    ]
    config = ExpansionConfig(num=3)
    found = dict(variants(read, folder, others, expansion=config, augmentation=NONE))
    gallery, queries = unit(NUM, 1), unit(QUERIES, 2)
    expanded = slow_expanded(queries, np.concatenate([gallery, extra]), 3)
    for name, asked in (("model", queries), ("model + QE", expanded)):
        wanted = revisited.score(read, asked, in_blocks(gallery), lambda: iter([extra]))
        assert found[name].values == pytest.approx(wanted.values, abs=1e-9)
        assert (found[name].complete, found[name].num_distractors) == (True, EXTRA)
    assert list(found) == ["model", "model + QE"]


def test_the_gallery_is_augmented_by_its_own_images_only(tmp_path: Path) -> None:
    read = truth()
    config = ExpansionConfig(num=4)
    found = dict(variants(read, stored(read, tmp_path / "e"), expansion=config, augmentation=config))
    gallery, queries = slow_expanded(unit(NUM, 1), unit(NUM, 1), 4, own=True), unit(QUERIES, 2)
    for name, asked in (("model + DBA", queries), ("model + DBA + QE", slow_expanded(queries, gallery, 4))):
        assert found[name].values == pytest.approx(revisited.score(read, asked, in_blocks(gallery)).values, abs=1e-9)
    assert list(found) == ["model", "model + QE", "model + DBA", "model + DBA + QE"]
    with pytest.raises(ValueError, match="only the gallery would be augmented"):
        next(variants(read, Folder("e"), [Folder("d")], expansion=NONE, augmentation=config))


def test_missing_queries_are_told_from_zeros(tmp_path: Path) -> None:
    read = truth()
    folder = stored(read, tmp_path / "e", without=("query/a#2", read.gallery[0]))
    queries, known = read_queries(folder, read)
    assert known.tolist() == [True, True, False, True]
    assert np.array_equal(queries[[0, 1, 3]], unit(QUERIES, 2)[[0, 1, 3]]) and not queries[2].any()
    assert list(gallery_names(folder)) == sorted(read.gallery[1:])


def test_settings_of_expansion_and_augmentation_are_not_mixed_up(tmp_path: Path) -> None:
    read, queries, gallery = truth(), unit(QUERIES, 2), unit(NUM, 1)
    folder = stored(read, tmp_path / "e")
    found = dict(variants(read, folder, expansion=ExpansionConfig(num=2), augmentation=ExpansionConfig(num=5)))
    held = slow_expanded(gallery, gallery, 5, own=True)
    wanted = {
        "model": (queries, gallery),
        "model + QE": (slow_expanded(queries, gallery, 2), gallery),
        "model + DBA": (queries, held),
        "model + DBA + QE": (slow_expanded(queries, held, 2), held),
    }
    for name, (asked, images) in wanted.items():
        assert found[name].values == pytest.approx(revisited.score(read, asked, in_blocks(images)).values, abs=1e-9)
    alone = dict(variants(read, folder, expansion=NONE, augmentation=ExpansionConfig(num=5)))
    assert list(alone) == ["model", "model + DBA"]
    assert alone["model + DBA"].values == found["model + DBA"].values


def test_missing_queries_stay_missing_in_each_way_of_scoring(tmp_path: Path) -> None:
    read, config = truth(), ExpansionConfig(num=2)
    folder = stored(read, tmp_path / "e", without=("query/b", read.gallery[3]))
    for name, found in variants(read, folder, expansion=config, augmentation=config):
        assert (found.num_missing_queries, found.num_missing) == (1, 1), name
        assert np.isnan(found.average_precision["medium"][1]) and found.num_queries["medium"] == QUERIES - 1


def test_blocks_are_those_on_storage(tmp_path: Path) -> None:
    read = truth()
    folder = stored(read, tmp_path / "e")
    rows = [own for own, _ in gallery_blocks(folder, read)()]
    assert len(rows) > 3 and sorted(np.concatenate(rows).tolist()) == list(range(NUM))
    first = write(tmp_path / "d1", {"x": unit(1, 3)[0]})
    second = write(tmp_path / "d2", {"y": unit(1, 4)[0], "z": unit(1, 5)[0]}, part=1)
    assert [len(block) for block in distractor_blocks([first, second])()] == [1, 1, 1]
