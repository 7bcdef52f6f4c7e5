"""An adapter is made of what belongs together, put into the bundle if it gains, and told of either way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ray_jobs import adapt
from ray_jobs.adapt import FIGURES, PICTURE, AdaptJobConfig
from retrieval.artifacts.embeddings import read_parts
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest, seal
from retrieval.images.pixels import encode_jpeg
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.engines.frozen import from_file
from retrieval.models.settings import ModelConfig
from retrieval.training.adapters.settings import AdaptConfig
from tests.support.embedded import people, store, store_tuples
from tests.support.frozen import tiny, write
from tests.support.inline import Cluster, install
from tests.support.words import write_pair

QUICK = AdaptConfig(epochs=6, learning_rate=1e-2, hidden=32)


def made(tmp_path: Path, noise: float = 2.0, **sizes: int) -> dict[str, Any]:
    """A frozen network's bundle, and a collection with embeddings that are said to be its."""
    root = Folder.of(tmp_path)
    write(tmp_path / "net", tiny(dim=16), dim=16)
    bundle.save_bundle(from_file(ModelConfig(backbone=f"onnx:{tmp_path / 'net'}")), root / "model")
    vectors, who = people(**({"num": 60} | sizes), noise=noise)
    splits = [("train", "train", "val")[person % 3] for person in who]
    collection, embeddings = store(root, vectors, [f"p{one}" for one in who], splits, root / "model")
    return {"collection": collection.uri, "embeddings": embeddings.uri, "model": (root / "model").uri}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return install(monkeypatch, adapt)


@pytest.mark.parametrize("by_tuples", [False, True])
def test_what_gains_is_sealed_into_the_bundle(by_tuples: bool, tmp_path: Path, cluster: Cluster) -> None:
    where, out = made(tmp_path), Folder.of(tmp_path / "adapted")
    if by_tuples:
        where["tuples"] = store_tuples(Folder.of(tmp_path / "tuples"), Folder.of(where["collection"])).uri
    cfg = AdaptJobConfig(**where, out=out.uri, adapt=QUICK)
    manifest = adapt.main(cfg)
    kept = manifest.counts["adapter"]
    assert kept in QUICK.candidates and manifest.inputs == adapt.inputs_of(cfg)
    assert (manifest.counts["adapter_train_photos"], manifest.counts["adapter_val_labels"]) == (160, 20)
    figures = out.read_json(FIGURES)["systems"]
    assert list(figures) == ["identity", "linear", "residual", "whitening"]
    assert [name for name, one in figures.items() if one["chosen"]] == [kept]
    assert figures[kept]["mAP"] == max(one["mAP"] for one in figures.values() if one.get("kept"))
    assert FIGURES in manifest.files and PICTURE in manifest.aside and "seconds/linear/epoch" in manifest.run
    assert f"{kept} is kept: mAP {figures['identity']['mAP']:.4f} -> {figures[kept]['mAP']:.4f}" in adapt.verdict(
        manifest, out
    )
    photos = [encode_jpeg(np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8)) for n in range(3)]
    plain, adapted = (Embedder(folder).embed_jpegs(photos) for folder in (where["model"], out.uri))
    net = bundle.load_network(out)
    assert net.adapter is not None
    np.testing.assert_array_equal(adapted, net.adapter(plain))
    assert cluster.sessions == 1 and adapt.main(cfg) == manifest and cluster.sessions == 1, "sealed: not done again"


def test_where_nothing_gains_the_bundle_is_the_model_as_it_was(tmp_path: Path, cluster: Cluster) -> None:
    where, out = made(tmp_path, noise=0.05), Folder.of(tmp_path / "adapted")
    manifest = adapt.main(AdaptJobConfig(**where, out=out.uri, adapt=QUICK))
    assert manifest.counts["adapter"] == "identity"
    net, plain = bundle.load_network(out), bundle.load_network(where["model"])
    assert net.adapter is None and net.spec == plain.spec and bundle.digest_of(net) == bundle.digest_of(plain)
    assert "no adapter gains enough on 20 people or places" in adapt.verdict(manifest, out)


def test_it_is_the_same_a_second_time(tmp_path: Path, cluster: Cluster) -> None:
    where = made(tmp_path, num=20)
    both = [
        adapt.main(AdaptJobConfig(**where, out=f"{tmp_path}/{name}", adapt=QUICK)).fingerprint for name in ("a", "b")
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("wrong", "refused"),
    [
        ({"model": "other"}, "embeddings were made with model"),
        ({"model": "collection"}, "holds a 'collection', expected a 'model'"),
        ({"tuples": "strange"}, "strange were made with collection"),
        ({"tuples": "model"}, "holds a 'model', expected a 'tuples'"),
        ({"embeddings": "strange"}, "holds a 'tuples', expected a 'embeddings'"),
    ],
)
def test_what_was_not_made_from_each_other_is_refused_before_anything_runs(
    wrong: dict[str, str], refused: str, tmp_path: Path, cluster: Cluster
) -> None:
    where, root = made(tmp_path, num=6), Folder.of(tmp_path)
    net = from_file(ModelConfig(backbone=f"onnx:{tmp_path / 'net'}", flip=True))
    bundle.save_bundle(net, root / "other")
    seal(root / "strange", kind="tuples", config={}, inputs={"collection": "0" * 64}, counts={})
    where |= {name: (root / folder).uri for name, folder in wrong.items()}
    with pytest.raises(ValueError, match=refused):
        adapt.main(AdaptJobConfig(**where, out=f"{tmp_path}/out"))
    assert cluster.sessions == 0


def test_a_network_of_words_too_is_refused_before_anything_runs(tmp_path: Path, cluster: Cluster) -> None:
    root = Folder.of(tmp_path)
    bundle.save_bundle(from_file(ModelConfig(backbone=f"onnx:{write_pair(tmp_path / 'net')}")), root / "model")
    vectors, who = people(6)
    collection, embeddings = store(root, vectors, [str(one) for one in who], ["train"] * len(who), root / "model")
    where: dict[str, Any] = {"collection": collection.uri, "embeddings": embeddings.uri, "model": (root / "model").uri}
    with pytest.raises(ValueError, match=r"shapes has a text tower, and a map learned on photos .*without \[text\]"):
        adapt.main(AdaptJobConfig(**where, out=f"{tmp_path}/out"))
    assert cluster.sessions == 0


def test_a_model_that_has_an_adapter_is_refused(tmp_path: Path, cluster: Cluster) -> None:
    where = made(tmp_path)
    first = adapt.main(AdaptJobConfig(**where, out=f"{tmp_path}/adapted", adapt=QUICK))
    assert first.counts["adapter"] != "identity"
    vectors, who = people(6)
    root = Folder.of(tmp_path / "again")
    store(root, vectors, [str(one) for one in who], ["train"] * len(who), Folder.of(tmp_path / "adapted"))
    again: dict[str, Any] = {name: (root / name).uri for name in ("collection", "embeddings")}
    with pytest.raises(ValueError, match="adapted has an adapter already. Name the model that it was made of"):
        adapt.main(AdaptJobConfig(**again, model=f"{tmp_path}/adapted", out=f"{tmp_path}/out"))


def test_memory_is_asked_for_as_many_embeddings_as_may_be_read(tmp_path: Path, cluster: Cluster) -> None:
    where = made(tmp_path)
    few = AdaptConfig(max_photos=10, max_val_photos=5)
    most, least = (
        adapt.needs_of(AdaptJobConfig(**where, out="x", adapt=config)).memory - adapt.GB for config in (QUICK, few)
    )
    assert most == 16 * least and least == 15 * 16 * 4 * adapt._COPIES


def test_mlflow_is_told_figures_curves_and_the_picture(tmp_path: Path, cluster: Cluster) -> None:
    told: dict[str, list[Any]] = {}

    def log(name: str) -> Any:
        return lambda *args, **named: told.setdefault(name, []).append((*args, named))

    names = ("log_params", "log_inputs", "log_metrics", "log_files")
    tracker: Any = SimpleNamespace(**{name: log(name) for name in names})
    where, out = made(tmp_path), Folder.of(tmp_path / "adapted")
    adapt.main(AdaptJobConfig(**where, out=out.uri, adapt=QUICK), tracker)
    figures = {named["prefix"]: values for values, named in told["log_metrics"] if "step" not in named}
    assert list(figures) == ["val/identity", "val/linear", "val/residual", "val/whitening"]
    assert figures["val/linear"] == out.read_json(FIGURES)["systems"]["linear"]
    losses = [(named["prefix"], named["step"]) for _, named in told["log_metrics"] if "step" in named]
    assert losses == [(f"train/{name}", epoch) for name in ("linear", "residual") for epoch in range(1, 7)]
    assert told["log_files"] == [(out, (FIGURES, PICTURE), {"to": "adapters"})]


def test_the_table_has_a_line_for_each_with_what_is_kept() -> None:
    one = {"recall@1": 0.5, "recall@10": 0.75, "mAP": 0.25}
    table = adapt.as_text(
        {
            "systems": {
                "identity": one | {"chosen": False},
                "linear": one | {"mAP": 0.375, "gain": 0.125, "error": 0.0125, "chosen": True},
            }
        }
    )
    head, plain, linear = table.splitlines()
    assert head.split() == ["recall@1", "recall@10", "mAP", "gain", "error"]
    assert plain.split() == ["identity", "0.5000", "0.7500", "0.2500"]
    assert linear.split() == ["linear", "0.5000", "0.7500", "0.3750", "+0.1250", "0.0125", "<-", "kept"]


def test_no_photo_is_read(tmp_path: Path, cluster: Cluster) -> None:
    """The collection of these tests has none."""
    where = made(tmp_path, num=6)
    assert not [name for name in Folder.of(where["collection"]).list() if name.startswith("images/")]
    assert sum(len(ids) for ids, _ in read_parts(Folder.of(where["embeddings"]))) == 24
    adapt.main(AdaptJobConfig(**where, out=f"{tmp_path}/out", adapt=QUICK))
    assert read_manifest(Folder.of(f"{tmp_path}/out"), "model").counts["adapter_val_photos"] == 8
