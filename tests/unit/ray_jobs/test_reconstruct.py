"""The stages of a reconstruction: each over all its parts, in order, and books that are the photos'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ray_jobs import reconstruct
from ray_jobs.reconstruct import ReconstructJobConfig
from retrieval.artifacts.collection import CATALOG_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest, seal
from retrieval.data import retrieval_sfm
from retrieval.geometry import extraction, pairing, reconstruction, stages
from retrieval.geometry import tuples as geometry_tuples
from retrieval.geometry.settings import ReconstructConfig
from tests.support.inline import Cluster, install


@pytest.fixture
def collection(tmp_path: Path) -> Folder:
    """Seven photos in parts 0, 2 and 5; one is for testing."""
    folder = Folder.of(tmp_path / "collection")
    splits = ["train", "train", "query", "train", "train", "val", "train"]
    parts = [0, 0, 0, 2, 2, 5, 5]
    rows = [
        {"image_id": f"{n}.jpg", "split": split, "part": part, "row": n, "label": None}
        for n, (split, part) in enumerate(zip(splits, parts, strict=True))
    ]
    folder.write_table("catalog.parquet", pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    seal(folder, kind="collection", config={}, inputs={}, counts={})
    return folder


COUNTS = {"images": 7, "registered": 4, "unregistered": {"too few": 3}, "queries": 2}


def job(collection: Folder, **settings: Any) -> ReconstructJobConfig:
    return ReconstructJobConfig(collection=collection.uri, out=f"{collection.uri}-tuples", **settings)


@pytest.fixture
def stages_of(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each stage of the library was called with; a round finds 600 pairs, then 10, then none."""
    calls: list[Any] = []
    found = [10, 0]

    def note(module: Any, name: str, value: Any = None) -> None:
        def work(*args: Any, **given: Any) -> Any:
            calls.append((name, args, given))
            return value(*args) if callable(value) else value

        work.__name__ = name
        monkeypatch.setattr(module, name, work)

    note(extraction, "extract_part", {"taken": 1})
    for name in ("verify_block", "map_group"):
        note(reconstruction, name, {"taken": 1})
    note(pairing, "train_vocabulary")
    note(pairing, "assign_part", {"taken": 1})
    note(pairing, "list_photos", 6)
    note(pairing, "write_slice", {"taken": 6})
    note(pairing, "look_up_block", {"taken": 1})
    note(pairing, "join_blocks", 600)
    note(pairing, "remove_vectors")
    note(pairing, "follow_links", lambda *_: found.pop(0))
    note(reconstruction, "group", {"groups": 2, "strong": 5, "links": 9})
    note(reconstruction, "assemble", lambda *_: dict(COUNTS))
    return calls


def names(cluster: Cluster) -> list[str]:
    return [call["name"] for call in cluster.parts]


def test_all_stages_run_over_all_their_parts(
    collection: Folder, stages_of: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = install(monkeypatch, reconstruct)
    cfg = job(collection, splits=("train", "val"), cpus_per_task=0.5, reconstruct=ReconstructConfig(rounds=2))
    made = reconstruct.main(cfg)
    assert names(cluster) == ["features", "words", "vectors", "candidates", "links", "links", "links", "models"]
    features, words, vectors, candidates, first, second, third, models = cluster.parts
    assert features["parts"] == words["parts"] == [0, 2, 5] and features["total_items"] == words["total_items"] == 6
    assert features["fixed"]["splits"] == ("train", "val") and features["fixed"]["collection"] == collection
    assert candidates["parts"] == vectors["parts"] == [0] and candidates["fixed"]["num"] == 6
    assert (first["parts"], second["parts"], third["parts"]) == ([0, 1, 2], [0], []), "256 pairs a block"
    assert [call["fixed"]["round_"] for call in (first, second, third)] == [0, 1, 2]
    assert [call["total_items"] for call in (first, second, third)] == [600, 10, 0]
    assert models["parts"] == [0, 1] and models["takes"] == "number"
    assert first["takes"] == candidates["takes"] == "block"
    assert first["fixed"]["size"] == 256 and candidates["fixed"]["size"] == 4096
    assert {call["needs"].cpus for call in cluster.parts} == {0.5}
    asked = [cluster.needs[name].memory - (1 << 29) for name in ("list_photos", "join_blocks")]
    assert asked == [6 * reconstruct._LISTED, 6 * reconstruct._PAIRED]
    extra = {"pairs": 610, "pairs_possible": 15, "links": 9}
    assert {name: made.counts[name] for name in extra} == extra
    assert [args[1:] for name, args, _ in stages_of if name == "follow_links"] == [
        (1, cfg.reconstruct),
        (2, cfg.reconstruct),
    ]
    assert [args[1] for name, args, _ in stages_of if name == "assemble"] == [2]
    assert [name for name, *_ in stages_of][-2:] == ["remove_vectors", "assemble"]


def test_features_that_were_kept_go_to_every_stage_and_none_is_taken(
    collection: Folder, stages_of: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, kept = install(monkeypatch, reconstruct), Folder.of(f"{collection.uri}-features")
    of = {"collection": read_manifest(collection).fingerprint}
    seal(kept, kind="features", config={"features": {"max_features": 99}}, inputs=of, counts={})
    made = reconstruct.main(job(collection, features=kept.uri, reconstruct=ReconstructConfig(rounds=0)))
    assert names(cluster) == ["words", "vectors", "candidates", "links", "models"]
    found = [call["fixed"].get("described") for call in cluster.parts if call["name"] not in ("vectors", "candidates")]
    assert set(found) == {kept}
    assert [args[-1] for name, args, _ in stages_of if name in {"train_vocabulary", "assemble"}] == [kept, kept]
    assert made.inputs == of | {"features": read_manifest(kept).fingerprint}
    with pytest.raises(ValueError, match="made with other settings|other inputs"):
        reconstruct.main(job(collection, reconstruct=ReconstructConfig(rounds=0)))


def test_features_of_other_photos_are_refused(collection: Folder, stages_of: list[Any], tmp_path: Path) -> None:
    kept = Folder.of(tmp_path / "features")
    seal(kept, kind="features", config={}, inputs={"collection": "another"}, counts={})
    with pytest.raises(ValueError, match="were made with collection another, not with the one given"):
        reconstruct.main(job(collection, features=kept.uri))
    for given in ({"labels_as_clusters": True}, {"models": "m"}, {"database": "d"}):
        with pytest.raises(ValueError, match="--features are what places are looked for by"):
            job(collection, features=kept.uri, **given)


def test_the_books_are_the_photos_that_were_looked_at(
    collection: Folder, stages_of: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = install(monkeypatch, reconstruct)
    made = reconstruct.main(job(collection))
    book = {"stage": "reconstruct", "taken": 7, "kept": 4, "rejected": {"too few": 3}}
    assert made.books == [book] and made.inputs == {"collection": read_manifest(collection).fingerprint}
    assert reconstruct.main(job(collection, cpus_per_task=2.0)) == made and cluster.sessions == 1
    with pytest.raises(ValueError, match="made with other settings"):
        reconstruct.main(job(collection, reconstruct=ReconstructConfig(rounds=1)))


def test_photos_that_are_lost_are_noticed(
    collection: Folder, stages_of: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, reconstruct)
    monkeypatch.setattr(reconstruction, "assemble", lambda *_: {**COUNTS, "registered": 3})
    with pytest.raises(ValueError, match="books of stage 'reconstruct' do not balance: 7 in, 3 kept"):
        reconstruct.main(job(collection))


def test_pairs_that_were_found_before_are_not_looked_for_again(
    collection: Folder, stages_of: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, cfg = install(monkeypatch, reconstruct), job(collection, reconstruct=ReconstructConfig(rounds=0))
    monkeypatch.setattr(stages, "pairs_name", lambda round_: "pairs.parquet")
    out = Folder.of(cfg.out)
    work = {"kind": "tuples", "config": cfg, "inputs": {"collection": read_manifest(collection).fingerprint}}
    reconstruct.begin(out, **work, ignore=("collection", "out", "cpus_per_task"))
    found = pa.table({"a": list(range(300)), "b": list(range(300))})
    out.write_table("pairs.parquet", found, about={"pairs": 300})
    made = reconstruct.main(cfg)
    assert names(cluster) == ["features", "links", "models"] and made.counts["pairs"] == 300
    assert cluster.parts[1]["parts"] == [0, 1]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"labels_as_clusters": True}, "from_labels"),
        ({"models": "here"}, "from_models"),
        ({"database": "here"}, "from_database"),
    ],
)
def test_tuples_of_somebody_else_are_taken_as_they_are(
    settings: Any, wanted: str, collection: Folder, stages_of: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, got = install(monkeypatch, reconstruct), {}
    here = str(Path(collection.path).parent)
    settings = {name: here if value == "here" else value for name, value in settings.items()}
    for module, name in (
        (geometry_tuples, "from_labels"),
        (geometry_tuples, "from_models"),
        (retrieval_sfm, "from_database"),
    ):
        result = ("images", "tuples") if name == "from_database" else ("images", "tuples", "models")
        monkeypatch.setattr(module, name, lambda *of, n=name, r=result: got.update({n: of}) or r)
    monkeypatch.setattr(geometry_tuples, "write", lambda *of: got.update(write=of) or dict(COUNTS))
    cfg = job(collection, **settings)
    reconstruct.main(cfg)
    assert set(got) == {wanted, "write"} and cluster.parts == []
    photos, *rest = got[wanted]
    assert photos["image_id"].to_pylist() == ["0.jpg", "1.jpg", "3.jpg", "4.jpg", "6.jpg"], "those that train"
    assert (
        rest
        == {"from_labels": [cfg.reconstruct], "from_models": [here, cfg.reconstruct], "from_database": [here]}[wanted]
    )
    models = () if wanted == "from_database" else "models"
    assert got["write"] == (Folder.of(cfg.out), "images", "tuples", models)


def test_a_collection_without_such_photos_is_refused(
    collection: Folder, stages_of: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, reconstruct)
    with pytest.raises(ValueError, match=r"no photo in the splits gallery, .*--keep-singles"):
        reconstruct.main(job(collection, splits=("gallery",)))
    assert stages_of == []


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"labels_as_clusters": True, "models": "m"}, "Give one of"),
        ({"models": "m", "database": "d"}, "Give one of"),
        ({"labels_as_clusters": True, "database": "d"}, "Give one of"),
        ({"cpus_per_task": 0.0}, "cpus_per_task is 0.0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: Any, refused: str, collection: Folder) -> None:
    with pytest.raises(ValueError, match=refused):
        job(collection, **settings)


@pytest.mark.parametrize("name", ["models", "database"])
def test_what_is_not_there_is_refused_at_once(
    name: str, collection: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = install(monkeypatch, reconstruct)
    with pytest.raises(ValueError, match=f"nothing at {tmp_path}/no. Name --{name}"):
        reconstruct.main(job(collection, **{name: f"{tmp_path}/no"}))
    assert cluster.sessions == 0 and not Folder.of(f"{collection.uri}-tuples").list()
