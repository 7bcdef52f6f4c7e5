"""Evaluation on a real local Ray: a drawn collection, two random bundles, the reports that come of them."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_jobs import build_index, embed, evaluate, ingest
from ray_jobs.build_index import BuildIndexConfig
from ray_jobs.embed import EmbedConfig
from ray_jobs.evaluate import EvaluateConfig
from ray_jobs.ingest import IngestConfig
from retrieval.artifacts import hashing
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.faces import draw_collection
from retrieval.data.settings import SplitConfig
from retrieval.evaluation import tasks
from retrieval.evaluation.metrics import average_precision, leave_one_out
from retrieval.evaluation.settings import System
from retrieval.images.settings import PrepareConfig
from retrieval.models.bundle import build, save_bundle
from retrieval.models.embedder import Embedder
from retrieval.models.settings import ModelConfig
from retrieval.search.settings import ExpansionConfig, IndexConfig

PREPARE = PrepareConfig(size=64, crop="none")


def bundle(folder: Path, seed: int) -> str:
    config = ModelConfig(backbone="mobilenet_v2", embedding_dim=8, image_size=32)
    save_bundle(build(config, preparation=hashing.plain(PREPARE), seed=seed), str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CelebA's format: 8 people, 4 photos each; photos 1 to 3 lose their attribute rows."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_collection(folder, num_identities=8, images_per_identity=4, seed=1, size=(60, 72))
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines[:2] + lines[5:]) + "\n")
    return folder


@pytest.fixture(scope="module")
def compared(drawn: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> EvaluateConfig:
    """A finished comparison of two systems: one on a flat index, one on a KD-tree."""
    root = tmp_path_factory.mktemp("compared")
    collection = str(root / "collection")
    split = SplitConfig(test_fraction=0.5, val_fraction=0.0)
    ingest.main(IngestConfig(source=str(drawn), out=collection, prepare=PREPARE, split=split, part_size=16))
    systems = []
    for seed, factory in enumerate(("Flat", "KDTree")):
        made = [bundle(root / f"model{seed}", seed), str(root / f"embeddings{seed}"), str(root / f"index{seed}")]
        embed.main(EmbedConfig(collection=collection, model=made[0], out=made[1], num_workers=1, precision="fp32"))
        build_index.main(
            BuildIndexConfig(
                embeddings=made[1],
                collection=collection,
                out=made[2],
                splits=("gallery",),
                index=IndexConfig(factory=factory, num_shards=2),
            )
        )
        systems.append(System.parse(f"{'before' if seed == 0 else 'after'}={','.join(made)}"))
    cfg = EvaluateConfig(
        out=str(root / "report"), collection=collection, systems=tuple(systems), ks=(2, 5, 1000), sheet_queries=3
    )
    evaluate.main(cfg)
    return cfg


def test_figures_of_a_comparison_are_those_of_a_plain_computation(compared: EvaluateConfig) -> None:
    metrics = Folder.of(compared.out).read_json("metrics.json")
    catalog = Folder.of(str(compared.collection)).read_table("catalog.parquet").sort_by("image_id").to_pylist()
    folder = compared.systems[1].embeddings
    vectors = {
        row["image_id"]: np.array(row["embedding"])
        for part in range(2)
        for row in folder.read_table(part_name(part)).to_pylist()
    }
    queries, gallery = ([row for row in catalog if row["split"] == split] for split in ("query", "gallery"))
    assert (len(queries), len(gallery)) == (4, 12)
    hits, accuracy = [], []
    for query in queries:
        scores = np.array([vectors[query["image_id"]] @ vectors[row["image_id"]] for row in gallery], dtype=np.float32)
        best = [gallery[i] for i in np.argsort(-scores, kind="stable")]  # ties in order of image_id
        hits.append(best[0]["label"] == query["label"])
        if query["attributes"] is not None:
            known = [row["attributes"] for row in best[:5] if row["attributes"] is not None]
            accuracy.append(np.mean([np.mean(np.array(found) == query["attributes"]) for found in known]))
    after = metrics["systems"]["after"]
    assert after["recall@1"] == pytest.approx(np.mean(hits))
    assert after["attribute_accuracy@5"] == pytest.approx(np.mean(accuracy))
    assert after["attribute_distance@5"] == pytest.approx(2 * (1 - np.mean(accuracy)))
    assert after["index_recall@10"] == 1.0
    assert after["index_type"] == "KDTree"
    assert after["embed_images"] == 32
    assert metrics["data"]["ks"] == [2, 5, 12] and metrics["data"]["subject"] == "person"  # no one said
    known = metrics["floors"]
    assert known["random_pair"] <= known["same_identity_pair"] <= known["oracle@2"] <= 1
    with_attributes = (
        sum(row["attributes"] is not None for row in queries),
        sum(row["attributes"] is not None for row in gallery),
    )
    assert after["attribute_pairs@12"] == with_attributes[0] * with_attributes[1]


def test_seconds_stand_beside_what_the_report_says(compared: EvaluateConfig) -> None:
    """Another run takes other seconds, and has the same fingerprint."""
    out = Folder.of(compared.out)
    assert "seconds" not in json.dumps(out.read_json("metrics.json"))
    seconds = out.read_json("timings.json")["systems"]
    for name in ("before", "after"):
        for key in (
            "embed_seconds",
            "embed_seconds_in_model",
            "query_seconds@2",
            "query_seconds@5",
            "query_seconds@12",
        ):
            assert seconds[name][key] > 0
    manifest = read_manifest(out, "report")
    assert set(manifest.files) == {"metrics.json", "calibration.json"}
    assert {"timings.json", "report.html", "retrieval.png", "ranked_results-after.jpg"} <= set(manifest.aside)


def test_an_augmented_gallery_is_scored_beside_the_plain_one(compared: EvaluateConfig, tmp_path: Path) -> None:
    """Each gallery vector takes on its nearest other, weighted by their score."""
    cfg = replace(
        compared, systems=compared.systems[1:], out=str(tmp_path / "report"), augmentation=ExpansionConfig(num=1)
    )
    cfg = replace(cfg, subject="place")
    evaluate.main(cfg)
    metrics = Folder.of(cfg.out).read_json("metrics.json")
    assert metrics["order"] == ["after", "after + DBA"]
    assert metrics["data"]["subject"] == "place"
    task = tasks.query_gallery(Folder.of(str(cfg.collection)), cfg.ks)
    folder = cfg.systems[0].embeddings
    queries, gallery = (tasks.read_embeddings(folder, side).astype(float) for side in (task.queries, task.gallery))
    # Scores are rounded to float32, and ties in order of image_id, as everywhere.
    held = []
    for row, vector in enumerate(gallery):
        scores = (gallery @ vector).astype(np.float32)
        scores[row] = -1
        held.append(vector + float(scores.max()) ** 3 * gallery[scores.argmax()])
    unit = (np.array(held) / np.linalg.norm(held, axis=1, keepdims=True)).astype(np.float32)
    ranked = np.argsort(-(queries @ unit.astype(float).T).astype(np.float32), axis=1, kind="stable")
    right = task.gallery.codes[ranked] == task.queries.codes[:, None]
    expected = np.mean([average_precision(np.flatnonzero(row), int(row.sum())) for row in right])
    assert metrics["systems"]["after + DBA"]["mAP"] == pytest.approx(expected)


def test_the_report_is_one_file_that_loads_nothing(compared: EvaluateConfig) -> None:
    out = Path(compared.out)
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert set(re.findall(r'(?:src|href)="(.{12})', page)) == {"data:image/p", "data:image/j"}
    inside = [base64.b64decode(data) for data in re.findall(r'base64,([^"]+)', page)]
    names = (
        "retrieval.png",
        "attribute_accuracy.png",
        "precision_and_recall.png",
        "ranked_results-before.jpg",
        "ranked_results-after.jpg",
    )
    assert inside == [(out / name).read_bytes() for name in names]
    for words in ("4 query photos against a gallery of 12", "1000 clipped to 12", "majority vector", "in model s"):
        assert words in page, words
    assert "Published on CelebA" not in page  # drawn faces are no faces to compare with


def test_a_sealed_comparison_is_printed_again(compared: EvaluateConfig, capsys: pytest.CaptureFixture[str]) -> None:
    before = (Path(compared.out) / "report.html").stat().st_mtime_ns
    manifest = evaluate.main(compared)
    printed = capsys.readouterr().out
    assert "Retrieval" in printed and "index_recall@10" in printed and "query k=12" in printed
    assert printed.index("\nbefore ") < printed.index("\nafter ")
    assert (Path(compared.out) / "report.html").stat().st_mtime_ns == before
    figures = json.loads((Path(compared.out) / "metrics.json").read_text())["systems"]["after"]
    assert manifest.counts["after/mAP"] == figures["mAP"]


def test_systems_that_do_not_belong_together_are_refused(compared: EvaluateConfig, tmp_path: Path) -> None:
    before, after = compared.systems
    mixed = replace(before, name="mixed", model=after.model)
    with pytest.raises(
        ValueError, match="The embeddings .* of system 'mixed' were made with model .* not with the one given"
    ):
        evaluate.main(replace(compared, systems=(mixed,), out=str(tmp_path / "a")))
    with pytest.raises(ValueError, match="share a name: before, before"):
        evaluate.main(replace(compared, systems=(compared.systems[0],) * 2, out=str(tmp_path / "c")))


def test_an_index_of_more_than_the_gallery_is_refused(compared: EvaluateConfig, tmp_path: Path) -> None:
    index, before = str(tmp_path / "index"), compared.systems[0]
    build_index.main(BuildIndexConfig(embeddings=before.embeddings.uri, collection=str(compared.collection), out=index))
    wide = replace(
        compared, systems=(replace(before, name="wide", index=Folder.of(index)),), out=str(tmp_path / "report")
    )
    with pytest.raises(ValueError, match="holds 32 images, the gallery has 12.*--splits gallery"):
        evaluate.main(wide)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Give either"),
        ({"model": "m"}, "Give either"),
        ({"model": "m", "source": "s", "collection": "c"}, "Give either"),
        ({"model": "m", "source": "s", "ks": (0,)}, "1 or more"),
        ({"model": "m", "source": "s", "max_queries": 0}, "1 or more"),
        ({"model": "m", "source": "s", "augmentation": ExpansionConfig(num=1)}, "would be in the vectors"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(out="o", **given)  # type: ignore[arg-type]


def test_any_bundle_on_a_labelled_folder_leave_one_out(drawn: Path, tmp_path: Path, ray_local: None) -> None:
    """Two people with three photos, one with a single photo, a copy of a photo, and a file that is no photo."""
    source = tmp_path / "people"
    photos = sorted((drawn / "img_align_celeba").iterdir())
    layout = {"ann": photos[:3], "bob": photos[3:6], "cyd": photos[6:7]}
    for person, files in layout.items():
        (source / person).mkdir(parents=True)
        for number, file in enumerate(files):
            (source / person / f"{number}.jpg").write_bytes(file.read_bytes())
    (source / "bob" / "copy.jpg").write_bytes(photos[3].read_bytes())
    (source / "bob" / "text.jpg").write_text("not a photo")
    cfg = EvaluateConfig(
        model=bundle(tmp_path / "model", 0),
        source=str(source),
        layout="lfw",
        out=str(tmp_path / "out"),
        ks=(3,),
        precision="fp32",
    )
    evaluate.main(cfg)

    out = Folder.of(cfg.out)
    metrics = (out / "report").read_json("metrics.json")
    data = metrics["data"]
    assert (data["num_queries"], data["num_gallery"], data["num_identities"]) == (6, 7, 2)
    assert metrics["floors"] is None
    assert read_manifest(out / "collection").counts["rejected_by_reason"] == {"not-an-image": 1}
    assert read_manifest(out / "collection").counts["duplicates"] == 1
    table = (out / "collection/images").read_table(part_name(0)).to_pylist()
    kept = sorted((row for row in table if not row["image_id"].endswith("copy.jpg")), key=lambda row: row["image_id"])
    vectors = Embedder(str(cfg.model), precision="fp32").embed_jpegs([row["jpeg"] for row in kept])
    expected = leave_one_out(vectors, [row["label"] for row in kept])
    figures = metrics["systems"]["model"]
    assert figures["mAP"] == pytest.approx(expected.values["mAP"], abs=1e-6)
    assert figures["recall@1"] == pytest.approx(expected.values["recall@1"])
    assert "Not measured" in (tmp_path / "out" / "report" / "report.html").read_text()

    with pytest.raises(ValueError, match="other settings or inputs"):
        evaluate.main(replace(cfg, model=bundle(tmp_path / "other", 1)))


def test_a_source_without_pairs_is_refused(drawn: Path, tmp_path: Path, ray_local: None) -> None:
    source = tmp_path / "flat"
    source.mkdir()
    for file in sorted((drawn / "img_align_celeba").iterdir())[:3]:
        (source / file.name).write_bytes(file.read_bytes())
    cfg = EvaluateConfig(model=bundle(tmp_path / "model", 0), source=str(source), out=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="No identity of .* has two different photos"):
        evaluate.main(cfg)


def test_a_bundle_of_whole_photos_is_tried_on_places(drawn: Path, tmp_path: Path, ray_local: None) -> None:
    photos = sorted((drawn / "img_align_celeba").iterdir())
    for number, file in enumerate(photos[:4]):
        place = tmp_path / "places" / ("church", "bridge")[number // 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(file.read_bytes())
    config = ModelConfig(cut="features.3", pooling="gem", head="none", image_size=32, keep_aspect=True)
    prepared = hashing.plain(PrepareConfig(crop="fit", size=64))
    save_bundle(build(config, preparation=prepared), str(tmp_path / "model"))
    cfg = EvaluateConfig(
        model=str(tmp_path / "model"),
        source=str(tmp_path / "places"),
        layout="lfw",  # a folder a place
        out=str(tmp_path / "out"),
        ks=(3,),
        precision="fp32",
    )
    evaluate.main(cfg)
    page = (tmp_path / "out/report/report.html").read_text()
    assert "Retrieval of a place: model" in page and "2 places (leave-one-out)" in page
    said = re.sub(r'src="[^"]*"', "", page)
    assert "person" not in said and "people" not in said and "Not measured" not in said
