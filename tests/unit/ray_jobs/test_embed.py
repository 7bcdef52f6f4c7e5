"""What the job asks of the cluster: which parts, how many actors, on what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ray_jobs import embed
from ray_jobs.embed import EmbedConfig
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import begin, seal
from tests.support.fake_jobs import sealed
from tests.support.inline import Cluster, install


class Actor:
    """Instead of a model: says which part it did."""

    def __init__(self, **fixed: Any) -> None:
        self.fixed = fixed

    def __call__(self, part: int) -> dict[str, Any]:
        return {"part": part}


@pytest.fixture
def collection(tmp_path: Path) -> Folder:
    """Of three parts, the last numbered 12; other files lie beside the images."""
    folder = Folder.of(tmp_path / "collection")
    for part in (0, 7, 12):
        folder.write_bytes(f"images/{part_name(part)}", b"x")
        folder.write_bytes(f"rejected/{part_name(part)}", b"x")
    seal(folder, kind="collection", config={}, inputs={}, counts={"stored": 30})
    return folder


def run(
    collection: Folder, monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], **settings: Any
) -> tuple[Cluster, list[Any]]:
    """The cluster that was asked, and what was sealed."""
    from retrieval.models import embedder

    cluster, ends = install(monkeypatch, embed, resources=resources), []
    monkeypatch.setattr(embed, "EmbedPart", Actor)
    monkeypatch.setattr(embed, "held_so_far", lambda out, what, now: now)
    monkeypatch.setattr(embedder, "begin_embeddings", lambda *of: None)
    monkeypatch.setattr(embedder, "seal_embeddings", lambda *of: ends.append(of))
    where = Path(collection.path).parent
    model = sealed(where / f"model-{len(settings)}", "model")
    embed.main(EmbedConfig(collection=collection.uri, model=model.uri, out=str(where / "out"), **settings))
    return cluster, ends


def test_each_part_of_images_is_done_and_sealed_under_its_number(
    collection: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, ((of, model, out, precision, rows, seconds),) = run(collection, monkeypatch, {"CPU": 2}, precision="fp32")
    (call,) = cluster.parts
    assert call["parts"] == [0, 7, 12] == [row["part"] for row in rows]
    assert call["total_items"] == 30 and cluster.sessions == 1
    assert (of, precision, out.uri.rpartition("/")[2]) == (collection, "fp32", "out") and 0 <= seconds < 60
    assert call["fixed"]["collection"] == collection and call["fixed"]["out"] == out
    assert call["fixed"]["model"] == model != collection
    settings: dict[str, Any] = {"batch_size": 64, "num_threads": 1, "device": "cpu", "engine": "auto"}
    settings["precision"] = "fp32"
    assert call["fixed"]["settings"] == settings | {"num_photos": 30}


@pytest.mark.parametrize(
    ("precision", "now", "before", "expected"),
    [
        ("auto", True, True, {"precision": "auto", "assume_bfloat16": True}),
        ("auto", False, True, {"precision": "fp32"}),
        ("auto", True, False, {"precision": "fp32"}),  # the parts that are there are in float32
        ("bf16", False, False, {"precision": "bf16"}),
    ],
)
def test_the_format_is_decided_once_for_all_machines_and_for_those_that_go_on(
    precision: Any, now: bool, before: bool, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(out := Folder.of(tmp_path), kind="embeddings", config={}, inputs={})
    for there in (before, now):
        monkeypatch.setattr(embed, "all_have_bfloat16", lambda *, gpu, there=there: there)
        found = embed._one_format(out, precision, use_gpu=False)
    assert found == expected


@pytest.mark.parametrize(
    ("resources", "settings", "expected"),
    [
        ({"CPU": 2}, {}, (0, 1, 0, "cpu")),  # 0: as many as fit
        ({"CPU": 5}, {"cpus_per_worker": 2}, (0, 2, 0, "cpu")),
        ({"CPU": 16}, {"num_workers": 2}, (2, 1, 0, "cpu")),
        ({"CPU": 16, "GPU": 2}, {}, (0, 1, 1, "auto")),
        ({"CPU": 16, "GPU": 1}, {"device": "cuda"}, (0, 1, 1, "cuda")),
        ({"CPU": 16, "GPU": 2}, {"device": "cpu"}, (0, 1, 0, "cpu")),
        ({"CPU": 2, "GPU": 0.5}, {}, (0, 1, 0, "cpu")),
    ],
)
def test_an_actor_a_gpu_or_for_so_many_cores(
    resources: Any, settings: Any, expected: Any, collection: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, _ = run(collection, monkeypatch, resources, **settings)
    (call,) = cluster.parts
    given = call["fixed"]["settings"]
    assert (call["workers"], call["needs"].cpus, call["needs"].gpus, given["device"]) == expected
    assert given["num_threads"] == expected[1]


def test_what_is_sealed_is_not_done_again(collection: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.models import embedder

    cluster = install(monkeypatch, embed)
    done = seal(Folder(f"{collection.uri}-made"), kind="embeddings", config={}, inputs={}, counts={"num": 30})
    monkeypatch.setattr(embedder, "begin_embeddings", lambda *of: done)
    made = embed.make_embeddings(collection, collection, Folder("out"))
    assert made is done and cluster.parts == []


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"cpus_per_worker": 0}, {"num_workers": -1}])
def test_numbers_out_of_range_are_refused(settings: Any) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} is {settings[name]}, expected"):
        EmbedConfig(collection="c", model="m", out="o", **settings)


def test_a_model_that_is_none_is_refused_before_a_cluster_is_asked(
    collection: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = install(monkeypatch, embed)
    with pytest.raises(ValueError, match="holds a 'collection', expected a 'model'"):
        embed.main(EmbedConfig(collection=collection.uri, model=collection.uri, out=str(tmp_path / "o")))
    assert cluster.sessions == 0
