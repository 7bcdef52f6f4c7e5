"""The steps of the road of faces, run for real at a size, and what each took: for scale_measure.py and scale_check.py.

The jobs of `pipeline faces`, with its settings, on four roads. `ingest` and `photos`: drawn portraits through that, and
through embed and grouping, where decoding and networks are what takes long. `tables` and `pairs`: parts, vectors and
photos of a few bytes, as those jobs leave them, through all that costs by the row, and by the pair, at sizes at which
that can be told.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scale_rows
from benchmarks.scale_meter import Cost, apart, cluster, measured

PART = 256  # photos, as ingest cuts a collection
SHOTS = 8  # photos of a drawn person
LISTS = (64, 1024)
"""Of the inverted files that are built beside the exact index: what they differ by is what a list costs."""
QUERIES = 500
"""That are asked one by one."""
ASKED = {"evaluate, some ask": 4_000, "evaluate, many ask": 16_000}
"""Of the road of tables, photos that ask: what many take more than some is what pairs cost."""


Costs = dict[str, Cost]
"""Step or job -> what it took."""


# ---- the road of photos ----


def draw(out: Path, most: int) -> None:
    """The portraits of the largest collection, drawn once by two processes."""
    from retrieval.data.demo.faces import IMAGE_FOLDER
    from retrieval.data.demo.settings import DemoConfig

    config = DemoConfig(num_identities=-(-most // SHOTS), images_per_identity=SHOTS)
    if (out / IMAGE_FOLDER / f"{config.num_images:06d}.jpg").exists():
        return
    cuts = np.linspace(0, config.num_images, 5).astype(int)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        done = [pool.submit(_draw, out, int(a), int(b), config) for a, b in itertools.pairwise(cuts)]
        for one in done:
            one.result()


def _draw(out: Path, start: int, stop: int, config: Any) -> None:
    from retrieval.data.demo.faces import draw_images

    draw_images(out, start, stop, config)


def first(drawn: Path, num: int, out: Path) -> Path:
    """A source of the first so many of the portraits; of more than there are, some come again under other names."""
    from retrieval.data.demo.faces import IMAGE_FOLDER, write_lists
    from retrieval.data.demo.settings import DemoConfig

    (out / IMAGE_FOLDER).mkdir(parents=True)
    config, there = DemoConfig(num_identities=num // SHOTS, images_per_identity=SHOTS), len(list(drawn.glob("*/*")))
    for number in range(config.num_images):
        os.link(drawn / IMAGE_FOLDER / f"{number % there + 1:06d}.jpg", out / IMAGE_FOLDER / f"{number + 1:06d}.jpg")
    write_lists(out, config)
    return out


def make_model(out: Path) -> Path:
    """The bundle that `pipeline faces` begins with."""
    from ray_jobs.presets import FACES as PRESET
    from ray_jobs.runtime.detector import with_detector
    from retrieval.artifacts.folder import Folder
    from retrieval.artifacts.hashing import plain
    from retrieval.models import bundle

    prepare, detector = with_detector(PRESET.prepare)
    net = bundle.start(PRESET.model, weights="none", preparation=plain(prepare), detector=detector)
    bundle.save_start(net, Folder.of(out))
    return out


def ingest_road(out: Path, model: Path, num: int, part: int = PART) -> Costs:
    """Ingest, of the portraits that `draw` has drawn."""
    from ray_jobs import ingest
    from ray_jobs.presets import FACES as PRESET

    source = first(out.parent / "drawn", num, out / "source")
    how: dict[str, Any] = {"layout": "celeba", "prepare": PRESET.prepare, "split": PRESET.split, "part_size": part}
    config = ingest.IngestConfig(source=str(source), out=str(out / "collection"), **how)
    return {"ingest": measured(lambda: ingest.main(config), out / "collection")}


def photos_road(out: Path, model: Path, num: int, part: int = PART) -> Costs:
    """Embed what was ingested; and what comparing pixels adds to grouping."""
    from ray_jobs import embed

    ingest_road(out, model, num, part)
    made: dict[str, Any] = {"collection": str(out / "collection"), "model": str(model)}
    config = embed.EmbedConfig(**made, out=str(out / "embeddings"), precision="fp32")
    costs = {"embed": measured(lambda: embed.main(config), out / "embeddings")}
    build(out, "Flat")
    group(out, model, False, out / "people-first")  # whose workers import what the others use
    without, compared = (group(out, model, wanted, out / f"people-{wanted}") for wanted in (False, True))
    processor, wall = compared.processor - without.processor, compared.wall - without.wall
    return costs | {"copies": Cost(processor=processor, wall=wall, held=compared.held)}


# ---- the road of rows ----


def tables_road(out: Path, model: Path, num: int, part: int = PART) -> Costs:
    """Tables and indexes, on drawn rows, people and vectors."""
    from benchmarks.bench_tables import make_source

    out.mkdir(parents=True)
    source = make_source(out, num)
    costs = {"plan": apart(scale_rows.plan, source, out / "planned", part)}
    costs |= scale_rows.make(out, model, num, part)
    costs["rows"] = apart(scale_rows.sort_rows, out)
    few, many = LISTS
    build(out, f"IVF{few},Flat")  # whose workers import what the others use
    costs["build_index"] = build(out, "Flat")
    costs["build_index, few lists"] = build(out, f"IVF{few},Flat", "again")
    costs["build_index, many lists"] = build(out, f"IVF{many},Flat")
    costs |= {name: evaluate(out, model, asked) for name, asked in ASKED.items()}
    costs["map"] = apart(scale_rows.map_rows, out)
    few_, many_ = (apart(scale_rows.ask, out, queries) for queries in (50, 50 + QUERIES))
    costs["queries"] = Cost(processor=many_.processor - few_.processor, wall=many_.wall - few_.wall, held=many_.held)
    return costs


def pairs_road(out: Path, model: Path, num: int, part: int = PART) -> Costs:
    """What looks at pairs of photos, on the same."""
    scale_rows.make(out, model, num, part)
    build(out, "Flat")
    costs = {"evaluate": evaluate(out, model), "group": group(out, model, False, out / "people-False")}
    return costs | {"merge": apart(scale_rows.merge, out, model)}


def build(out: Path, factory: str, name: str = "") -> Cost:
    from ray_jobs import build_index
    from ray_jobs.presets import FACES as PRESET
    from retrieval.search.settings import IndexConfig

    where = out / f"index-{name or factory.partition(',')[0]}"
    made: dict[str, Any] = {"collection": str(out / "collection"), "embeddings": str(out / "embeddings")}
    config = build_index.BuildIndexConfig(
        **made, out=str(where), splits=PRESET.served_splits, index=IndexConfig(factory=factory)
    )
    return measured(lambda: build_index.main(config), where)


def evaluate(out: Path, model: Path, asked: int | None = None) -> Cost:
    from ray_jobs import evaluate
    from retrieval.artifacts.folder import Folder
    from retrieval.evaluation.settings import System

    system = System(name="sface", model=Folder.of(model), embeddings=Folder.of(out / "embeddings"))
    config = evaluate.EvaluateConfig(
        collection=str(out / "collection"),
        systems=(system,),
        protocol="leave-one-out",
        subject="person",
        out=str(out / f"report-{asked}"),
        max_queries=asked,
    )
    return measured(lambda: evaluate.main(config), out / f"report-{asked}")


def group(out: Path, model: Path, compared: bool, where: Path) -> Cost:
    from ray_jobs import group
    from retrieval.grouping.settings import GroupingConfig

    made: dict[str, Any] = {
        "collection": str(out / "collection"),
        "embeddings": str(out / "embeddings"),
        "model": str(model),
    }
    config = group.GroupConfig(
        **made, index=str(out / "index-Flat"), out=str(where), group=GroupingConfig(duplicates=compared)
    )
    return measured(lambda: group.main(config), where)


def one(road: str, root: Path, model: Path, num: int, part: int = PART) -> Costs:
    """A road at a size, in a Ray of its own, so that each finds what the others find; what it made is removed."""
    out = root / f"{road}-{num}-{part}"
    with cluster(root):
        costs = ROADS[road](out, model, num, part)
    shutil.rmtree(out)
    return costs


ROADS: dict[str, Callable[..., Costs]] = {
    "ingest": ingest_road,
    "photos": photos_road,
    "tables": tables_road,
    "pairs": pairs_road,
}
"""Name -> (folder, model, photos, photos of a part) -> what its steps took."""


# ---- small ones ----


def nothing(part: int) -> dict[str, int]:
    """A part that has nothing to do."""
    return {"part": part}


def seconds_a_megapixel(side: int, times: int = 10) -> float:
    """Processor seconds that a megapixel of a photo takes: one of side x side pixels, less a drawn one as it is."""
    import cv2

    from ray_jobs.presets import FACES
    from ray_jobs.runtime.detector import with_detector
    from retrieval.data.demo.people import sample_person, sample_shot
    from retrieval.data.demo.portrait import render
    from retrieval.images.faces import make_detector
    from retrieval.images.pixels import encode_jpeg, limit_threads
    from retrieval.images.preparation import prepare

    limit_threads(1)
    config, network = with_detector(FACES.prepare)
    detector, person = make_detector(config, network), sample_person(0, 0)
    small = render(person, sample_shot(0, 0, 0, person), (178, 218))
    large = np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    took = []
    for photo in (encode_jpeg(small), encode_jpeg(large)):
        started = time.process_time()
        for _ in range(times):
            prepare(photo, config, detector)
        took.append((time.process_time() - started) / times)
    return (took[1] - took[0]) / (side**2 / 1e6 - 178 * 218 / 1e6)


def keep_books(out: Path, parts: int) -> None:
    """Seal a folder of so many parts, and read its manifest."""
    from retrieval.artifacts.folder import Folder, part_name
    from retrieval.artifacts.manifest import begin, read_manifest, seal

    folder = Folder.of(out)
    begin(folder, kind="embeddings", config={}, inputs={})
    files = {part_name(part): f"{part:064x}" for part in range(parts)}
    for name in files:
        (out / name).touch()
    seal(folder, kind="embeddings", config={}, inputs={}, counts={"num": parts}, files=files)
    read_manifest(folder)
