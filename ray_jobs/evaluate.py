"""Evaluate: how well photos of the same person or place find each other, in figures, plots and a report to read.

Compare systems on a collection's own queries and gallery (what the pipeline does, before and after training):

    python -m ray_jobs.evaluate --collection C --out R --systems before=MODEL,EMBEDDINGS,INDEX after=...
    python -m ray_jobs.evaluate ... --protocol leave-one-out --expansion.num 10 --rerank 100

Or try any bundle on any labelled photos: every photo is a query against all the others (leave one out):

    python -m ray_jobs.evaluate --model BUNDLE --source PHOTOS --out DIR
    ray job submit --working-dir . -- python -m ray_jobs.evaluate --model s3://... --source s3://... --out s3://...

The first writes metrics.json, report.html and its pictures to R; the second to DIR/report, beside the collection and
the embeddings it had to make. The tables are printed at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import ray
import tyro

from ray_jobs.parts import make_collection, make_embeddings
from ray_jobs.session import on_cluster, session
from retrieval import measure, model, protocols, report, report_html, report_tables, rerank, scene_figures
from retrieval.artifacts import Folder, Manifest, begin, plain, read_manifest, seal
from retrieval.datasets import Layout
from retrieval.expansion import ExpansionConfig, augment_gallery, expand_by_search
from retrieval.ingestion import PrepareConfig
from retrieval.measure import Measured
from retrieval.precision import Precision
from retrieval.ranking import Neighbours
from retrieval.splits import SplitConfig

_MAX_SHEETS = 4
_RANKED = 1000  # results that a re-ordered list has, at most; positives beyond count as not found


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Measure systems on a collection, or a bundle on a labelled source."""

    out: str
    """Folder or URI for the results: new, empty, or left by an unfinished run of the same settings."""
    collection: str | None = None
    """Folder or URI of a sealed collection, whose queries are asked of its gallery."""
    systems: tuple[str, ...] = ()
    """What to compare on it, the starting point first: NAME=MODEL,EMBEDDINGS,INDEX, three folders or URIs each.
    The index must be one of the gallery alone (build_index --splits gallery); without one the search is exact."""
    protocol: Literal["query-gallery", "leave-one-out", "mined-places"] = "query-gallery"
    """With --systems: the catalog's queries ask its gallery, or each photo of both asks all the others. mined-places,
    where nothing is labelled: photos of the places that mining kept for validation, by --tuples, ask all the others."""
    subject: Literal["person", "place"] = "person"
    """What a label names, for the report's words."""
    expansion: ExpansionConfig = field(default_factory=ExpansionConfig)
    """Query expansion: each system is scored a second time with it, if --expansion.num is above 0."""
    augmentation: ExpansionConfig = field(default_factory=ExpansionConfig)
    """The same over the gallery itself (database-side augmentation), if --augmentation.num is above 0. Not with
    leave-one-out, where the gallery would take on the queries."""
    rerank: int = 0
    """The first so many results are put in order of the local features that fit one geometry, and the first and the
    last system are scored once more; 0: not. Costs about 0.3 s a photo and 0.03 s a result on one core."""
    tuples: str = ""
    """Folder or URI of training tuples, to show what they were mined from: cameras, points, tuples."""
    model: str | None = None
    """Folder or URI of a bundle to try on --source."""
    source: str | None = None
    """Labelled photos to try --model on, in any layout that ingest reads."""
    layout: Layout = "auto"
    """How --source is laid out, see ingest --help."""
    ks: tuple[int, ...] = protocols.KS
    """Numbers of results to measure attribute agreement and query time at; clipped to what the gallery has."""
    sheet_queries: int = 8
    """Queries drawn for the ranked-result sheets."""
    max_queries: int | None = None
    """With --source: draw this many queries instead of asking with every photo. For sets of more than about 50,000."""
    seed: int = 0
    """Draws the sheets' queries, and those of --max-queries."""
    device: str = "auto"
    """With --source: where the model runs: auto, cpu or cuda."""
    precision: Precision = "auto"
    """With --source. auto: bfloat16 where the hardware has it and it leaves embeddings as they are."""
    num_workers: int = 0
    """With --source: processes that hold the model; 0: one a GPU, or one a CPU core where there is no GPU."""

    def __post_init__(self) -> None:
        compare = self.collection is not None and bool(self.systems) and self.model is None and self.source is None
        attempt = self.model is not None and self.source is not None and self.collection is None and not self.systems
        if not compare and not attempt:
            raise ValueError(
                "Give either --collection and --systems (compare systems on a collection), or --model and --source "
                "(try a bundle on labelled photos)."
            )
        if not self.ks or min(self.ks) < 1 or self.sheet_queries < 1:
            raise ValueError(f"ks is {self.ks} and sheet_queries {self.sheet_queries}, expected numbers of 1 or more.")
        if self.protocol == "mined-places" and not self.tuples:
            raise ValueError("The protocol mined-places asks with photos of mined places. Name them with --tuples.")
        if self.augmentation.num and (self.protocol != "query-gallery" or self.source is not None):
            raise ValueError(
                "augmentation.num is above 0 and every photo asks all others: each would be in the vectors that it is "
                "to find. Augment with --protocol query-gallery, or in ray_jobs.benchmark."
            )
        if self.rerank < 0:
            raise ValueError(f"rerank is {self.rerank}, expected 0 (not) or how many results, for example 100.")
        if self.max_queries is not None and self.max_queries < 1:
            raise ValueError(f"max_queries is {self.max_queries}, expected 1 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """One side of a comparison. Without an index, an exact one is made in memory."""

    name: str
    model: Folder
    embeddings: Folder
    index: Folder | None = None

    @classmethod
    def parse(cls, text: str) -> System:
        """NAME=MODEL,EMBEDDINGS or NAME=MODEL,EMBEDDINGS,INDEX."""
        name, equals, rest = text.partition("=")
        folders = rest.split(",")
        if not equals or not name or len(folders) not in (2, 3) or not all(folders):
            raise ValueError(f"Cannot read system '{text}'. Write NAME=MODEL,EMBEDDINGS,INDEX, three folders.")
        model, embeddings, *index = (Folder.of(folder) for folder in folders)
        return cls(name=name, model=model, embeddings=embeddings, index=index[0] if index else None)

    def fingerprints(self, collected: Manifest) -> dict[str, str]:
        """What it is made of.

        Raises: ValueError if its parts, or they and the collection, do not belong together.
        """
        seals = {
            "model": read_manifest(self.model, "model"),
            "embeddings": read_manifest(self.embeddings, "embeddings"),
        }
        belongs = [("embeddings", "model", seals["model"]), ("embeddings", "collection", collected)]
        if self.index is not None:
            seals["index"] = read_manifest(self.index, "index")
            belongs.append(("index", "embeddings", seals["embeddings"]))
        for made, of, wanted in belongs:
            if seals[made].inputs.get(of) != wanted.fingerprint:
                raise ValueError(
                    f"System '{self.name}': its {made} were made with {of} {str(seals[made].inputs.get(of))[:12]}, the "
                    f"{of} given is {wanted.fingerprint[:12]}. Name folders that were made from each other."
                )
        return {f"{self.name}.{kind}": manifest.fingerprint for kind, manifest in seals.items()}


def main(cfg: EvaluateConfig) -> Manifest:
    """Run the job and print its tables. Results sealed under the same settings and inputs are printed again.

    Raises: ValueError for settings or inputs that do not fit.
    """
    with session():
        if cfg.collection is not None:
            systems = [System.parse(text) for text in cfg.systems]
            return _report(cfg, Folder.of(cfg.out), Folder.of(cfg.collection), systems, cfg.protocol)
        out = Folder.of(cfg.out)
        system = System(name="model", model=Folder.of(str(cfg.model)), embeddings=out / "embeddings")
        _ingest_source(cfg, out / "collection", system.model)
        make_embeddings(
            out / "collection",
            system.model,
            system.embeddings,
            workers=cfg.num_workers,
            device=cfg.device,
            precision=cfg.precision,
        )
        return _report(cfg, out / "report", out / "collection", [system], "leave-one-out")


def _report(cfg: EvaluateConfig, out: Folder, collection: Folder, systems: list[System], protocol: str) -> Manifest:
    collected = read_manifest(collection, "collection")
    inputs = {"collection": collected.fingerprint}
    for system in systems:
        inputs |= system.fingerprints(collected)
    names = [system.name for system in systems]
    if len(set(names)) != len(names):
        raise ValueError(f"Two systems share a name: {', '.join(names)}. Give each its own.")
    settings = {name: getattr(cfg, name) for name in ("ks", "sheet_queries", "max_queries", "seed", "subject")}
    settings |= {"rerank": cfg.rerank, "expansion": plain(cfg.expansion), "augmentation": plain(cfg.augmentation)}
    if cfg.tuples:
        inputs["tuples"] = read_manifest(Folder.of(cfg.tuples), "tuples").fingerprint
    work: dict[str, Any] = {
        "kind": "report",
        "config": settings | {"protocol": protocol, "systems": names},
        "inputs": inputs,
    }
    manifest = begin(out, **work)
    if manifest is None:
        metrics = on_cluster(_write_report, cfg, out, collection, systems, protocol)
        counts = {name: metrics["data"][name] for name in ("num_queries", "num_gallery", "num_identities")}
        for name, figures in metrics["systems"].items():
            counts |= {f"{name}/{key}": figures[key] for key in report_tables.RETRIEVAL_METRICS}
        manifest = seal(out, counts=counts, **work)
    metrics = out.read_json("metrics.json")
    metrics["systems"] = {name: metrics["systems"][name] for name in metrics["order"]}  # the file sorts them by name
    print(f"\n{report_tables.as_text(metrics)}\n\nReport: {out}/report.html", flush=True)
    return manifest


def _write_report(
    cfg: EvaluateConfig, out: Folder, collection: Folder, systems: list[System], protocol: str
) -> dict[str, Any]:
    """Everything of a report, on one worker: embeddings stay there, figures come back."""
    if protocol == "query-gallery":
        task = protocols.query_gallery(collection, cfg.ks)
    elif protocol == "mined-places":
        task = protocols.mined_places(collection, Folder.of(cfg.tuples), cfg.ks)
    else:
        splits = ("query", "gallery") if cfg.collection is not None else None
        task = protocols.leave_one_out(collection, cfg.ks, cfg.max_queries, cfg.seed, splits)
    metrics: dict[str, Any] = {"data": protocols.describe(task) | {"subject": cfg.subject}, "systems": {}}
    metrics["floors"] = measure.floors(task)
    sheets, plots, curves = [], [], {}
    for system in systems:
        ends = system in (systems[0], systems[-1])
        for name, measured in _scored(cfg, task, collection, system, cfg.rerank if ends else 0):
            metrics["systems"][name] = _origin(system) | measured.figures
            curves[name] = measured.curve
            rows = measure.sheet_rows(task, measured.found, collection, num_queries=cfg.sheet_queries, seed=cfg.seed)
            picture = report.sheet_jpg(rows, title=f"{name}: the nearest of each query")
            sheets.append(report_html.ranked_sheet(name, picture))
        if system.model.exists("history.json") and not any(of.startswith("training curves") for of, _ in plots):
            plots.append((f"training curves, {system.name}", report.curves_png(system.model.read_json("history.json"))))
    metrics["order"] = list(metrics["systems"])
    if len(sheets) > _MAX_SHEETS:  # the first and the last say what all the steps between did
        sheets = [sheets[0], *sheets[1 - _MAX_SHEETS :]]
    plots.insert(0, ("retrieval", report.retrieval_png(metrics)))
    plots.insert(1, ("precision and recall", report.precision_recall_png(curves)))
    if metrics["floors"] is not None:
        plots.insert(1, ("attribute accuracy", report.attributes_png(metrics)))
    sheets += _evidence(cfg, task, collection, systems[-1])
    if cfg.tuples:
        plots += scene_figures.scene_plots(Folder.of(cfg.tuples))
    for name, data in plots:
        out.write_bytes(f"{_file_name(name)}.png", data)
    for sheet in sheets:
        out.write_bytes(f"{_file_name(sheet.title)}.jpg", sheet.data)
    facts = {"collection": f"{collection} {read_manifest(collection).fingerprint}"}
    for system in systems:
        for kind in ("model", "embeddings", "index"):
            if (folder := getattr(system, kind)) is not None:
                facts[f"{system.name}: {kind}"] = f"{folder} {read_manifest(folder).fingerprint}"
    title = f"Retrieval of a {cfg.subject}: " + ", then ".join(system.name for system in systems)
    page = report_html.render(metrics, title=title, plots=plots, sheets=sheets, facts=facts)
    out.write_bytes("report.html", page.encode())
    out.write_json("metrics.json", metrics)
    return metrics


def _scored(
    cfg: EvaluateConfig, task: protocols.Task, collection: Folder, system: System, top: int
) -> Iterator[tuple[str, Measured]]:
    """The system as it is, with query expansion, with an augmented gallery, with its results in order of geometry."""
    queries, gallery = (protocols.read_embeddings(system.embeddings, side) for side in (task.queries, task.gallery))
    search = measure.open_index(system.index, task.gallery) if system.index else measure.flat_search(gallery)
    measured = measure.measure(task, queries, gallery, search)
    yield system.name, measured
    if cfg.expansion.num:
        asked = expand_by_search(queries, gallery, search, cfg.expansion, task.exclude)
        yield f"{system.name} + QE", measure.measure(task, asked, gallery, search)
    if cfg.augmentation.num:
        held = augment_gallery(gallery, search, cfg.augmentation)
        yield f"{system.name} + DBA", measure.measure(task, queries, held, measure.flat_search(held))
    if top:
        deep = measure.search_without_own(task, queries, search, min(_RANKED, len(task.gallery.ids) - 1))
        inliers = _inliers(task, collection, deep, top)
        yield f"{system.name} + rerank", measure.measure_reranked(task, measured, rerank.rerank(deep, inliers))


def _evidence(cfg: EvaluateConfig, task: protocols.Task, collection: Folder, system: System) -> list[report_html.Sheet]:
    """What training looked at, and which points the last system's results have in common with their queries."""
    sheets = []
    if system.model.exists("tuples.jpg"):
        note = (
            "Left, the query; then its positive, green, and its hard negatives, red, with their scores after training."
        )
        data = system.model.read_bytes("tuples.jpg")
        sheets.append(report_html.Sheet(title="Training tuples", note=note, data=data))
    if cfg.rerank:
        queries, gallery = (protocols.read_embeddings(system.embeddings, side) for side in (task.queries, task.gallery))
        some = np.random.default_rng(cfg.seed).permutation(len(queries))[: cfg.sheet_queries]
        found = measure.search_without_own(task, queries, measure.flat_search(gallery), 10)
        asked = dataclasses.replace(task, queries=task.queries.take(some), exclude=task.exclude[some])
        nearest = Neighbours(found.scores[some], found.rows[some])
        counts = rerank.count_inliers(collection, asked, nearest, range(len(some)), 10)
        if pairs := rerank.evidence(collection, asked, nearest, counts, 3):
            picture = report.matches_jpg(pairs, title="query and result, with the points that match")
            note = "Why a result was put first: local features that fit one two-view geometry."
            sheets.append(report_html.Sheet(title="Matched points", note=note, data=picture))
    return sheets


def _inliers(task: protocols.Task, collection: Folder, found: Neighbours, top: int) -> np.ndarray:
    """(Q, top) counts, a block of queries a task."""
    blocks = np.array_split(np.arange(len(found.rows)), max(1, int(ray.cluster_resources().get("CPU", 1))))
    whole, lists = ray.put(task), ray.put(found)
    count = ray.remote(rerank.count_inliers)
    counted = [count.remote(collection, whole, lists, block.tolist(), top) for block in blocks if len(block)]
    return np.concatenate(ray.get(counted))


def _file_name(name: str) -> str:
    return name.lower().replace(", ", "-").replace(" + ", "+").replace(" ", "_")


def _origin(system: System) -> dict[str, Any]:
    """What the manifests tell of a system: the cost of its embeddings, and the type of its index."""
    embedded = read_manifest(system.embeddings, "embeddings")
    index = read_manifest(system.index, "index").config["index"]["factory"] if system.index else "Flat"
    return {
        "embed_images": embedded.counts["num"],
        "embed_seconds": embedded.counts.get("seconds"),
        "embed_seconds_in_model": embedded.counts.get("seconds_in_model"),
        "embedding_dim": embedded.counts["dim"],
        "index_type": index,
        "model": read_manifest(system.model).fingerprint,
    }


def _ingest_source(cfg: EvaluateConfig, out: Folder, bundle: Folder) -> None:
    """Make the collection of --source, its photos prepared as the bundle wants them."""
    prepare = _preparation(bundle)
    split = SplitConfig(test_fraction=0.0, val_fraction=0.0)  # leave-one-out asks with everything: nothing is set aside
    settings = {"layout": cfg.layout, "prepare": plain(prepare), "split": plain(split)}
    make_collection(out, str(cfg.source), layout=cfg.layout, prepare=prepare, split=split, settings=settings)


def _preparation(bundle: Folder) -> PrepareConfig:
    """How the bundle wants a photo prepared.

    Raises: ValueError if it does not say: then it was not made by training on a collection.
    """
    stored = model.load_spec(bundle).preparation
    if not stored:
        raise ValueError(f"The bundle {bundle} does not say how photos are prepared for it. Train or embed it again.")
    return PrepareConfig(**stored)


if __name__ == "__main__":
    main(tyro.cli(EvaluateConfig, description=__doc__))
