"""Whitening is learned on what was made from each other, from every pair once, and nothing else is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs import whiten
from ray_jobs.whiten import WhitenJobConfig
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, read_manifest, seal
from retrieval.models.engines.manifest import NetworkManifest
from retrieval.models.settings import ModelConfig
from retrieval.models.spec import SPEC_FILE, ModelSpec
from retrieval.models.text.manifest import TextManifest
from retrieval.training import whitening_fit
from retrieval.training.settings import WhitenConfig
from tests.support.inline import install


def made(folder: Folder, kind: str, words: bool = False, /, **inputs: Folder) -> Folder:
    of = {name: read_manifest(one).fingerprint for name, one in inputs.items()}
    begin(folder, kind=kind, config={"at": folder.uri}, inputs=of)
    if kind == "model":
        network = (
            None if not words else NetworkManifest(name="pair", dim=8, licence="MIT", text=TextManifest(context=8))
        )
        config = ModelConfig() if network is None else ModelConfig(backbone="onnx:pair", head="none")
        folder.write_json(SPEC_FILE, ModelSpec(config=config, network=network).plain)
    seal(folder, kind=kind, config={"at": folder.uri}, inputs=of, counts={"best_epoch": 3, "best_val_mAP": 0.5})
    return folder


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Folder]:
    """Two collections and two models, and what was made from each."""
    root = Folder.of(tmp_path)
    found = {f"{kind}{n}": made(root / f"{kind}{n}", kind) for kind in ("collection", "model") for n in "12"}
    for c in "12":
        found[f"tuples{c}"] = made(root / f"tuples{c}", "tuples", collection=found[f"collection{c}"])
        for m in "12":
            of = {"collection": found[f"collection{c}"], "model": found[f"model{m}"]}
            found[f"embeddings{c}{m}"] = made(root / f"embeddings{c}{m}", "embeddings", **of)
    return found


def config(places: dict[str, Folder], method: Any = "learned", **other: str) -> WhitenJobConfig:
    names = {"model": "model1", "collection": "collection1", "embeddings": "embeddings11", "tuples": "tuples1", **other}
    folders: dict[str, Any] = {kind: places[name].uri if name else "" for kind, name in names.items()}
    return WhitenJobConfig(
        out=f"{places['model1'].uri}-out", whiten=WhitenConfig(method=method, max_pairs=1000), **folders
    )


def test_inputs_are_the_fingerprints_of_all_that_is_read(places: dict[str, Folder]) -> None:
    wanted = {
        kind: read_manifest(places[name]).fingerprint
        for kind, name in (("model", "model1"), ("embeddings", "embeddings11"), ("collection", "collection1"))
    }
    assert whiten.inputs_of(config(places, "pca")) == wanted
    tuples = read_manifest(places["tuples1"]).fingerprint
    assert whiten.inputs_of(config(places)) == {**wanted, "tuples": tuples}


@pytest.mark.parametrize(
    ("other", "refused"),
    [
        ({"embeddings": "embeddings12"}, "embeddings12 were made with model"),
        ({"embeddings": "embeddings21"}, "embeddings21 were made with collection"),
        ({"model": "model2"}, "embeddings11 were made with model"),
        ({"collection": "collection2", "embeddings": "embeddings21"}, "tuples1 were made with collection"),
        ({"tuples": "tuples2"}, "tuples2 were made with collection"),
        ({"tuples": ""}, "Learned whitening needs matching pairs"),
        ({"tuples": "model1"}, "holds a 'model', expected a 'tuples'"),
        ({"model": "collection1"}, "holds a 'collection', expected a 'model'"),
    ],
)
def test_what_was_not_made_from_each_other_is_refused_before_anything_runs(
    other: Any, refused: str, places: dict[str, Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = install(monkeypatch, whiten)
    with pytest.raises(ValueError, match=refused):
        whiten.main(config(places, **other))
    assert cluster.sessions == 0


def test_a_network_of_words_too_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cluster = Folder.of(tmp_path), install(monkeypatch, whiten)
    places = {"collection1": made(root / "collection1", "collection"), "model1": made(root / "model1", "model", True)}
    of = {"collection": places["collection1"], "model": places["model1"]}
    places["embeddings11"] = made(root / "embeddings11", "embeddings", **of)
    with pytest.raises(ValueError, match=r"pair has a text tower, and a map learned on photos .*without \[text\]"):
        whiten.main(config(places, "pca", tuples=""))
    assert cluster.sessions == 0


def test_pca_asks_for_no_tuples(places: dict[str, Folder]) -> None:
    assert set(whiten.inputs_of(config(places, "pca", tuples=""))) == {"model", "embeddings", "collection"}


@pytest.mark.parametrize("tasks", [1, 3, 9])
def test_every_pair_is_in_one_share(tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: Any = ([f"q{n}" for n in range(7)], [f"p{n}" for n in range(7)])
    monkeypatch.setattr(whitening_fit, "moments_of_pairs", lambda embeddings, collection, splits, mine: mine)
    here = Folder("/x")
    shares = [whiten.pair_share(here, here, ("train",), pairs, number, tasks) for number in range(tasks)]
    assert shares.count(None) == max(0, tasks - 7), "a share of nothing is no share"
    seen = [pair for share in shares if share for pair in zip(*share, strict=True)]
    assert sorted(seen) == sorted(zip(*pairs, strict=True))


@pytest.mark.parametrize("method", ["pca", "learned"])
def test_the_sums_of_all_parts_and_pairs_are_put_together(
    method: Any, places: dict[str, Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.models import bundle

    cluster, got = install(monkeypatch, whiten, resources={"CPU": 2}), {}
    monkeypatch.setattr(whitening_fit, "parts_of", lambda collection, splits: np.arange(10))
    monkeypatch.setattr(whitening_fit, "moments_of_parts", lambda e, c, splits, parts: ("parts", *parts))
    monkeypatch.setattr(whitening_fit, "pairs_of", lambda tuples, config: (["a"] * 3, ["b"] * 3))
    monkeypatch.setattr(whitening_fit, "moments_of_pairs", lambda e, c, splits, mine: ("pairs", len(mine[0])))
    monkeypatch.setattr(whitening_fit, "whiten", lambda net, moments, config: got.update(m=list(moments), c=config))
    monkeypatch.setattr(bundle, "load_network", lambda where: "net")
    monkeypatch.setattr(bundle, "keep_history", lambda where, out: {"kept": str(where)})

    def save(net: Any, out: Folder, *, run: Any, **work: Any) -> None:
        got.update(work, run=run)
        seal(out, kind="model", **work)

    monkeypatch.setattr(bundle, "save_bundle", save)
    cfg = config(places, method)
    whiten.main(cfg)
    parts = [number for share in got["m"] if share[0] == "parts" for number in share[1:]]
    assert sorted(parts) == list(range(10)) and len([share for share in got["m"] if share[0] == "parts"]) == 4
    pairs = sum(share[1] for share in got["m"] if share[0] == "pairs")
    assert pairs == (3 if method == "learned" else 0)
    assert got["c"] == cfg.whiten and got["inputs"] == whiten.inputs_of(cfg)
    assert got["counts"] == {"best_epoch": 3, "best_val_mAP": 0.5} and got["run"] == {"kept": places["model1"].uri}
    assert cluster.sessions == 1
    again = whiten.main(cfg)
    assert again.kind == "model" and cluster.sessions == 1, "sealed: not done again"
