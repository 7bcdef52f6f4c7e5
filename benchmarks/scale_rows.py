"""Parts, vectors and photos of a few bytes, as the jobs leave them, and the tasks of those jobs that take them up: what
scale_runs.py measures apart.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale_meter import Cost, apart


def make(out: Path, model: Path, num: int, part: int) -> dict[str, Cost]:
    """A collection and its embeddings. Returns what the catalogue took."""
    from benchmarks.bench_group import draw as draw_people

    vectors, labels = draw_people(num, 0)
    make_parts(out / "collection", labels, part)
    costs = {"catalogue": apart(catalogue, out / "collection", -(-num // part))}
    seal(out, model, vectors, part)
    return costs


def plan(source: str, out: Path, part: int) -> None:
    from retrieval.data.catalog import plan_collection

    plan_collection(str(out), source=source, layout="manifest", config={}, part_size=part)


def make_parts(out: Path, labels: np.ndarray, part: int) -> None:
    """What `ingest_part` leaves, of photos that are 16 pixels wide."""
    from benchmarks.drawn_parts import write_images
    from retrieval.artifacts.folder import Folder
    from retrieval.images.pixels import encode_jpeg

    folder, rng = Folder.of(out), np.random.default_rng(0)
    jpegs = [encode_jpeg(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)) for _ in range(64)]
    for start in range(0, len(labels), part):
        rows = range(start, min(start + part, len(labels)))
        names = [name_of(row) for row in rows]
        known = {
            "image_id": names,
            "jpeg": [jpegs[row % 64] for row in rows],
            "width": [16] * len(names),
            "height": [16] * len(names),
            "label": [f"person {labels[row]:09d}" for row in rows],
            "content_hash": [f"{row:064x}" for row in rows],
            "photo": names,
        }
        write_images(folder, start // part, known)
    folder.write_json("source.json", {}, about={})


def name_of(row: int) -> str:
    return f"albums/{row // 1000:07d}/holiday-{row:012d}.jpg"


def catalogue(out: Path, parts: int) -> None:
    from ray_jobs.presets import FACES as PRESET
    from retrieval.data.catalog import write_catalog

    write_catalog(str(out), parts, PRESET.split)


def seal(out: Path, model: Path, vectors: np.ndarray, part: int) -> None:
    """Seal the collection, and write its embeddings."""
    from ray_jobs.presets import FACES as PRESET
    from retrieval.artifacts.embeddings import write_part
    from retrieval.artifacts.folder import Folder
    from retrieval.artifacts.hashing import plain
    from retrieval.artifacts.manifest import read_manifest, seal

    collection, embeddings, num = Folder.of(out / "collection"), Folder.of(out / "embeddings"), len(vectors)
    config, counts = {"prepare": plain(PRESET.prepare)}, {"stored": num}
    inputs = {"collection": seal(collection, kind="collection", config=config, inputs={}, counts=counts).fingerprint}
    inputs["model"] = read_manifest(Folder.of(model)).fingerprint
    for start in range(0, num, part):
        rows = range(start, min(start + part, num))
        write_part(embeddings, start // part, [name_of(row) for row in rows], vectors[start : rows.stop])
    counts = {"num": num, "dim": vectors.shape[1]}
    seal(embeddings, kind="embeddings", config={}, inputs=inputs, counts=counts)


def sort_rows(out: Path) -> None:
    from ray_jobs.presets import FACES as PRESET
    from retrieval.artifacts.folder import Folder
    from retrieval.search.shards import assign_rows

    collection, index = Folder.of(out / "collection"), Folder.of(out / "rows")
    assign_rows(collection, index, PRESET.served_splits, Folder.of(out / "embeddings"))


def merge(out: Path, model: Path) -> None:
    """What one node does once all links are there: as the job has it, in a folder of its own."""
    from ray_jobs.group import GroupConfig, threshold_of
    from retrieval.artifacts.folder import Folder
    from retrieval.grouping import people

    shutil.copytree(out / "people-False/links", out / "merged/links")
    made = {"index": out / "index-Flat", "embeddings": out / "embeddings", "collection": out / "collection"}
    named: dict[str, Any] = {name: str(folder) for name, folder in made.items()}
    config = GroupConfig(**named, model=str(model), out=str(out / "merged"))
    folders: dict[str, Any] = {name: Folder.of(folder) for name, folder in made.items()}
    how: dict[str, Any] = {"config": config.group, "threshold": threshold_of(config)}
    plan = people.plan_people(**folders, out=Folder.of(out / "merged"), **how)
    people.write_people(plan, [f"links/{file.name}" for file in sorted((out / "merged/links").glob("*.parquet"))])


def map_rows(out: Path) -> None:
    from benchmarks.bench_tables import make_map

    make_map(str(out / "index-Flat"), str(out / "collection"), str(out / "cache"))


def ask(out: Path, queries: int) -> None:
    """One query after another, on one thread, of the exact index."""
    import faiss

    from retrieval.artifacts.folder import Folder
    from retrieval.search.index import Searcher

    faiss.omp_set_num_threads(1)
    searcher, rng = Searcher.open(Folder.of(out / "index-Flat")), np.random.default_rng(2)
    asked = rng.normal(size=(queries, searcher.dim)).astype(np.float32)
    for query in asked:
        searcher.search(query[None], 10)
