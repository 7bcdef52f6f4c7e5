"""The same work by more workers, on more nodes and on unlike ones: is the result the same?

    python tests/faults/equal.py             # all of it, some minutes
    python tests/faults/equal.py --sample    # one embedding, and no training: what `make test` keeps

Nodes are raylets of this machine, of one core each, and workers wait for each other before their first part
(meeting.py): each node does some of the work, and which did is told.

1. Embed (as it is by default; PyTorch and onnxruntime in float32) and build_index (exact, trained, a tree) on one node
   and on three: every file equal to the byte. Only manifest.json may differ, and there only `created` and `run` (when,
   how long, by how many).
2. One of the nodes lacks bfloat16, as oneDNN is told by its environment: all parts in one format, and so if a job that
   was begun on others goes on there.
3. Training by labels and by tuples with one, two and four workers: equal mined tuples (tuples_sha256), and what else
   the history holds equal within TOLERANCE.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # sums in one order

from ray_jobs import build_index, embed, train  # noqa: E402
from retrieval.artifacts.folder import Folder, part_name  # noqa: E402
from retrieval.artifacts.manifest import MANIFEST, begin, read_manifest, seal  # noqa: E402
from retrieval.models.settings import ModelConfig  # noqa: E402
from retrieval.search.settings import IndexConfig  # noqa: E402
from retrieval.training.settings import TrainConfig, TupleTrainConfig  # noqa: E402
from tests.faults.meeting import nodes, one_core, remove, together  # noqa: E402

TOLERANCE = {"labels": 1e-4, "labels-auto": 1e-1, "tuples": 1e-2}
"""Of losses and scores, relative. Gradients of several workers are summed in another order, and Adam divides each by
its own size, so those that are next to nothing count as much as others: the difference grows from step to step. Where
auto comes to bfloat16, rounding is coarser."""
LACKS_BFLOAT16 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
_PARTS = 6


def content(folder: Path) -> dict[str, str]:
    """File -> sha256 of its bytes; of the manifest without what rightly differs."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.name == MANIFEST:
            told = json.loads(data)
            data = json.dumps({key: told[key] for key in sorted(set(told) - {"created", "run"})}).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def make_inputs(root: Path) -> None:
    """48 photos in parts, and a network that bears bfloat16."""
    from retrieval.models import bundle
    from tests.support.patterns import make_patterns

    make_patterns(root / "collection", train=8, val=2, query=2, shots=4, part_size=48 // _PARTS)
    config = ModelConfig(backbone="resnet18", cut="layer2", image_size=64, embedding_dim=16)
    bundle.save_bundle(bundle.build(config, weights="none", seed=0), root / "model")


EMBEDS: dict[str, dict[str, Any]] = {
    "auto": {},
    "float32": {"engine": "torch", "precision": "fp32"},
    "onnxruntime": {"engine": "onnxruntime", "precision": "fp32"},
}
KINDS = ("Flat", "IVF2,Flat", "KDTree")


def make_all(root: Path, out: Path, others: int, embeds: Sequence[str]) -> None:
    """Everything, on so many nodes."""
    with together(root, others):
        for name in embeds:
            embedded(root, out / name, others, **EMBEDS[name])
        for kind in KINDS:
            build_index.main(
                build_index.BuildIndexConfig(
                    collection=str(root / "collection"),
                    embeddings=str(out / "auto"),
                    out=str(out / kind.replace(",", "-")),
                    index=IndexConfig(factory=kind, num_shards=3),
                )
            )


def embedded(root: Path, out: Path, workers: int, **settings: Any) -> dict[str, Any]:
    """The manifest's `run`."""
    of: dict[str, Any] = {"collection": str(root / "collection"), "model": str(root / "model"), "out": str(out)}
    return embed.main(embed.EmbedConfig(**of, num_workers=workers, device="cpu", **settings)).run


def compare(one: Path, three: Path) -> None:
    made = {place: content(place) for place in (one, three)}
    if made[one] != made[three]:
        different = [name for name in {**made[one], **made[three]} if made[one].get(name) != made[three].get(name)]
        raise SystemExit(f"one node and three made different files: {different}")
    files = sum(not name.endswith(MANIFEST) for name in made[one])
    print(f"one node and three: {files} files of embeddings and indexes equal to the byte, and their manifests")


def unlike(root: Path, cluster: Any, *, from_the_start: bool) -> None:
    """A job that was begun where all are alike goes on with a node that lacks bfloat16; another begins there."""
    whole, cut = Folder.of(root / "three/auto"), Folder.of(root / "cut")
    manifest = read_manifest(whole)
    (was,) = manifest.run["parts_by_format"]
    # As a driver leaves it that died after two parts: nothing is sealed, and each part that is there has its marker.
    begin(cut, kind=manifest.kind, config=manifest.config, inputs=manifest.inputs)
    for part in (0, 1):
        about = {"taken": 8, "kept": 8, "broken": 0, "left": [], "dim": manifest.counts["dim"]}
        about |= {"engine": "torch", "format": was}
        cut.write_bytes(part_name(part), whole.read_bytes(part_name(part)), about=about)
    cluster.add_node(**one_core(**LACKS_BFLOAT16))
    for name in ("cut", "mixed") if from_the_start else ("cut",):
        with together(root, 4):
            run = embedded(root, root / name, 4)
        if run["parts_by_format"] != {"float32": _PARTS}:
            raise SystemExit(f"with a node that lacks bfloat16, {name}: {run['parts_by_format']}")
        how = "begun on nodes alike, which made two parts of it" if name == "cut" else "begun there"
        print(f"nodes alike: all parts in {was}; with one that lacks bfloat16, {how}: all in float32")


def trained(root: Path) -> None:
    """By one, two and four workers, by both recipes."""
    from retrieval.artifacts.collection import localise
    from retrieval.artifacts.tuples import write_tuples
    from retrieval.geometry import tuples

    collection = Folder.of(root / "collection")
    local = localise(collection, root / "cache", ("train", "val"))
    ids = sorted(local.image_ids)
    write_tuples(
        Folder.of(root / "tuples"),
        *tuples.divide(*tuples.labelled_tables(ids, [name[:3] for name in ids]), val_fraction=0.25),
    )
    inputs = {"collection": read_manifest(collection).fingerprint}
    seal(Folder.of(root / "tuples"), kind="tuples", config={}, inputs=inputs, counts={})
    recipes: dict[str, dict[str, Any]] = {
        "labels": {
            "model": ModelConfig(backbone="resnet18", cut="layer2", image_size=64, embedding_dim=16),
            "train": TrainConfig(epochs=2, groups_per_batch=2, precision="fp32", seed=3),
        },
        "labels-auto": {
            "model": ModelConfig(backbone="resnet18", cut="layer2", image_size=64, embedding_dim=16),
            "train": TrainConfig(epochs=2, groups_per_batch=2, seed=3),
        },
        "tuples": {
            "tuples": str(root / "tuples"),
            "model": ModelConfig(cut="features.4", pooling="gem", head="none", image_size=64, keep_aspect=True),
            "siamese": TupleTrainConfig(epochs=2, image_size=64, num_negatives=2, queries_per_epoch=8, seed=3),
        },
    }
    for recipe, settings in recipes.items():
        histories = {num: history(root, f"{recipe}-{num}", num, settings) for num in (1, 2, 4)}
        epochs = list(zip(*histories.values(), strict=True))
        worst = [max(_difference(recipe, one, two), _difference(recipe, one, four)) for one, two, four in epochs]
        hashes = [row["tuples_sha256"][:12] for row in histories[1][1:]]
        told = ", ".join(f"{one:.0e}" for one in worst)
        print(
            f"{recipe}: 1, 2 and 4 workers: tuples equal ({', '.join(hashes)}); all else, by epoch: {told}", flush=True
        )
        if max(worst) > TOLERANCE[recipe]:
            raise SystemExit(f"{recipe}: more than {TOLERANCE[recipe]:.0e}")


def history(root: Path, out: str, workers: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    cfg = train.TrainJobConfig(
        collection=str(root / "collection"),
        out=str(root / out),
        weights="none",
        num_workers=workers,
        cpus_per_worker=1,
        device="cpu",
        cache=str(root / f"cache-{out}"),
        max_failures=0,
        **settings,
    )
    train.main(cfg)
    return Folder.of(cfg.out).read_json("history.json")


def _difference(recipe: str, one: dict[str, Any], several: dict[str, Any]) -> float:
    """The largest of an epoch, relative."""
    worst = 0.0
    for key, value in one.items():
        if key.startswith("seconds"):
            continue
        if not isinstance(value, float):
            if several[key] != value:
                raise SystemExit(f"{recipe}: {key} of epoch {one['epoch']} is {several[key]}, of one worker {value}")
        else:
            worst = max(worst, abs(several[key] - value) / max(abs(value), 1e-9))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="one embedding, and no training")
    sample = parser.parse_args().sample
    with tempfile.TemporaryDirectory(prefix="eq-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        (root / "r" / "ray").mkdir(parents=True)
        os.environ |= {"RAY_TMPDIR": str(root / "r"), "RAY_USAGE_STATS_ENABLED": "0"}
        os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        os.environ |= {"RETRIEVAL_CACHE": str(root / "engines")}
        os.environ.pop("RAY_ADDRESS", None)
        make_inputs(root)
        with nodes() as cluster:
            embeds = ("auto",) if sample else tuple(EMBEDS)
            make_all(root, root / "one", 1, embeds)
            cluster.add_node(**one_core())
            cluster.add_node(**one_core())
            make_all(root, root / "three", 3, embeds)
            compare(root / "one", root / "three")
            if not sample:
                fourth = cluster.add_node(**one_core())
                trained(root)
                remove(cluster, fourth)
            unlike(root, cluster, from_the_start=not sample)


if __name__ == "__main__":
    main()
