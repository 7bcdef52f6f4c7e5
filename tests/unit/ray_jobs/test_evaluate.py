"""What an evaluation may be asked, what it is made of, and who asks whom."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs import evaluate
from ray_jobs.evaluate import EvaluateConfig, inputs_of
from ray_jobs.runtime.command import parse
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, read_manifest, seal
from retrieval.evaluation.settings import System
from retrieval.search.settings import ExpansionConfig
from tests.support.inline import install
from tests.support.measured import write_collection, write_system

A, B = (System(name=name, model=Folder("/m"), embeddings=Folder("/e")) for name in "ab")
COMPARE: dict[str, Any] = {"out": "o", "collection": "c", "systems": (A,)}
ATTEMPT: dict[str, Any] = {"out": "o", "model": "m", "source": "s"}


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"out": "o"}, "Give either --collection and --systems"),
        ({**COMPARE, "model": "m"}, "Give either"),
        ({**COMPARE, "source": "s"}, "Give either"),
        ({**COMPARE, "systems": ()}, "Give either"),
        ({**ATTEMPT, "collection": "c"}, "Give either"),
        ({**ATTEMPT, "systems": (A,)}, "Give either"),
        ({"out": "o", "model": "m"}, "Give either"),
        ({**COMPARE, "systems": (A, B, A)}, "Two systems share a name: a, b, a"),
        ({**COMPARE, "ks": ()}, "ks is"),
        ({**COMPARE, "ks": (5, 0)}, "ks is"),
        ({**COMPARE, "sheet_queries": 0}, "sheet_queries 0"),
        ({**COMPARE, "rerank": -1}, "rerank is -1"),
        ({**COMPARE, "features": "f"}, "--features is what --rerank goes by"),
        ({**ATTEMPT, "features": "f", "rerank": 9}, "--features is what --rerank goes by"),
        ({**COMPARE, "num_workers": -1}, "num_workers is -1"),
        ({**COMPARE, "max_queries": 0}, "max_queries is 0"),
        ({**COMPARE, "protocol": "mined-places"}, "Name them with --tuples"),
        ({**COMPARE, "protocol": "leave-one-out", "augmentation": ExpansionConfig(num=1)}, "augmentation.num"),
        ({**ATTEMPT, "augmentation": ExpansionConfig(num=1)}, "augmentation.num"),
    ],
)
def test_settings_that_say_nothing_together_are_refused(settings: Any, refused: str) -> None:
    with pytest.raises(ValueError, match=refused):
        EvaluateConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        COMPARE,
        ATTEMPT,
        {**COMPARE, "systems": (A, B), "rerank": 0, "max_queries": 1, "augmentation": ExpansionConfig(num=1)},
        {**COMPARE, "protocol": "mined-places", "tuples": "t"},
        {**COMPARE, "rerank": 9, "features": "f"},
        {**ATTEMPT, "max_queries": None, "ks": (1,), "sheet_queries": 1},
    ],
)
def test_settings_that_go_together_are_taken(settings: Any) -> None:
    assert EvaluateConfig(**settings).out == "o"


def test_a_system_is_one_word_of_a_command_line(tmp_path: Path) -> None:
    line = f"--out o --collection c --systems before={tmp_path}/a=b/m,{tmp_path}/e after=/m,/e,/i"
    cfg = parse(EvaluateConfig, "", "ray_jobs.evaluate", line.split())
    before, after = cfg.systems
    assert (before.name, before.model.uri, before.index) == ("before", f"{tmp_path}/a=b/m", None)
    assert (after.name, after.index) == ("after", Folder("/i"))


def test_a_system_that_is_none_is_refused_when_it_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(EvaluateConfig, "", "ray_jobs.evaluate", ["--out", "o", "--collection", "c", "--systems", "before"])
    said = " ".join(capsys.readouterr().err.split())
    assert "Error parsing --systems" in said and "[NAME=MODEL,EMBEDDINGS,INDEX [" in said


@pytest.fixture
def collection(tmp_path: Path) -> Folder:
    return write_collection(Folder.of(tmp_path / "collection"))


def tuples_of(collection: Folder, folder: Folder, kind: str = "tuples") -> Folder:
    inputs = {"collection": read_manifest(collection).fingerprint}
    begin(folder, kind=kind, config={}, inputs=inputs)
    seal(folder, kind=kind, config={}, inputs=inputs, counts={})
    return folder


def test_a_report_is_made_of_the_collection_all_systems_and_the_tuples(collection: Folder, tmp_path: Path) -> None:
    root = Folder.of(tmp_path)
    systems = tuple(write_system(root, collection, name, seed=n) for n, name in enumerate("ab"))
    tuples = tuples_of(collection, root / "tuples")
    cfg = EvaluateConfig(out="o", collection=collection.uri, systems=systems)
    plain = {"collection": read_manifest(collection).fingerprint}
    for system in systems:
        plain[f"{system.name}.model"] = read_manifest(system.model).fingerprint
        plain[f"{system.name}.embeddings"] = read_manifest(system.embeddings).fingerprint
    assert inputs_of(cfg, collection, systems) == plain
    with_tuples = inputs_of(dataclasses.replace(cfg, tuples=tuples.uri), collection, systems)
    assert with_tuples == {**plain, "tuples": read_manifest(tuples).fingerprint}
    features = tuples_of(collection, root / "features", "features")
    by_features = inputs_of(dataclasses.replace(cfg, rerank=5, features=features.uri), collection, systems)
    assert by_features == {**plain, "features": read_manifest(features).fingerprint}


def test_what_was_not_made_from_each_other_is_refused_before_a_cluster_is_asked(
    collection: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, root = install(monkeypatch, evaluate), Folder.of(tmp_path)
    other = write_collection(root / "other", crop="fit")
    system = write_system(root, collection, "a")
    cfg = EvaluateConfig(out=f"{tmp_path}/o", collection=other.uri, systems=(system,))
    with pytest.raises(ValueError, match="of system 'a' were made with collection"):
        evaluate.main(cfg)
    cfg = dataclasses.replace(cfg, collection=collection.uri, tuples=tuples_of(other, root / "tuples").uri)
    with pytest.raises(ValueError, match="tuples were made with collection"):
        evaluate.main(cfg)
    features = tuples_of(other, root / "features", "features").uri
    with pytest.raises(ValueError, match="features were made with collection"):
        evaluate.main(dataclasses.replace(cfg, tuples="", rerank=5, features=features))
    with pytest.raises(ValueError, match="There is nothing at"):
        evaluate.main(EvaluateConfig(out="o", model=system.model.uri, source=f"{tmp_path}/photos"))
    with pytest.raises(ValueError, match="holds a 'collection', expected a 'model'"):
        evaluate.main(EvaluateConfig(out="o", model=collection.uri, source=str(tmp_path)))
    assert cluster.sessions == 0


@pytest.mark.parametrize(
    ("settings", "protocol", "asked"),
    [
        ({}, "query-gallery", ("query_gallery", (10, 20), None, 0)),
        ({"features": "/f"}, "query-gallery", ("query_gallery", (10, 20), None, 0)),
        ({"tuples": "/t"}, "mined-places", ("mined_places", Folder("/t"), (10, 20))),
        ({"seed": 7, "max_queries": 3}, "query-gallery", ("query_gallery", (10, 20), 3, 7)),
        ({"seed": 7, "max_queries": 3}, "leave-one-out", ("leave_one_out", (10, 20), 3, 7, ("query", "gallery"))),
        ({**ATTEMPT, "seed": 7}, "leave-one-out", ("leave_one_out", (10, 20), None, 7, None)),
    ],
)
def test_who_asks_whom(settings: Any, protocol: Any, asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.reports import comparison

    for name in ("query_gallery", "mined_places", "leave_one_out"):
        monkeypatch.setattr(evaluate.tasks, name, lambda collection, *rest, name=name, **_: (name, *rest))
    monkeypatch.setattr(comparison, "write_report", lambda *given: given)
    base = {} if "model" in settings else COMPARE
    more = {"ks": (10, 20), "sheet_queries": 3, "rerank": 4, "expansion": ExpansionConfig(num=2)}
    cfg = EvaluateConfig(**{**base, **settings, **more})
    out, collection = Folder("/o"), Folder("/c")
    got: Any = evaluate.write(cfg, out, collection, (A,), protocol, "place")
    assert got[:4] == (out, collection, (A,), asked)
    scoring, shown = got[4], got[5]
    assert (scoring.expansion, scoring.augmentation, scoring.rerank) == (cfg.expansion, cfg.augmentation, 4)
    assert scoring.features == (Folder("/f") if cfg.features else None)
    tuples = Folder("/t") if cfg.tuples else None
    assert (shown.subject, shown.sheet_queries, shown.seed, shown.tuples) == ("place", 3, cfg.seed, tuples)


def test_of_people_unlabelled_photos_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.reports import comparison

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(evaluate.tasks, "leave_one_out", lambda *_, **given: asked.append(given))
    monkeypatch.setattr(comparison, "write_report", lambda *given: given)
    for subject in ("person", "place"):
        evaluate.write(EvaluateConfig(**COMPARE), Folder("/o"), Folder("/c"), (A,), "leave-one-out", subject)
    assert asked == [{"distractors": False, "without": set()}, {"distractors": True, "without": set()}]


@pytest.mark.parametrize("cpus", [1, 2, 3, 50])
def test_matches_are_counted_in_blocks_and_come_back_in_order(cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.search import rerank

    install(monkeypatch, evaluate, resources={"CPU": cpus})
    blocks = []

    def count(collection: Folder, asked: np.ndarray, found: np.ndarray, kept: Folder | None) -> np.ndarray:
        assert kept == Folder("/f")
        blocks.append(len(asked))
        return found[:, :, 1] * 10 + asked[:, 1:]

    monkeypatch.setattr(rerank, "count_inliers", count)
    asked = np.array([[0, n] for n in range(7)])
    found = np.arange(28).reshape(7, 2, 2)
    whole = count(Folder("/c"), asked, found, Folder("/f"))
    assert np.array_equal(evaluate.count_inliers(Folder("/c"), asked, found, Folder("/f")), whole)
    assert blocks[1:] == [len(block) for block in np.array_split(asked, min(cpus, 7))]
