"""Adapt: a model and its embeddings -> the same model with a small map of its embeddings, trained on these, put last.

    python -m ray_jobs.adapt --collection W/collection --embeddings W/embeddings --model W/model --out W/adapted

Any network, one in ONNX too: no photo is read and no network run, so an epoch takes a second or so. Candidates are
whitening, a linear map and a small residual one, trained by the collection's labels or by --tuples. They are tried on
people or places of its val split; one that does not gain there is not kept: then the bundle is the model as it was.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_sealed
from ray_jobs.runtime.parallel.limits import TimeLimits
from ray_jobs.runtime.parallel.placement import GB, Needs
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, plain
from retrieval.artifacts.manifest import Manifest, begin, check_made_from, read_manifest
from retrieval.artifacts.progress import Progress, silent
from retrieval.models.spec import load_spec
from retrieval.training.adapters.settings import AdaptConfig

if TYPE_CHECKING:
    from ray_jobs.runtime.tracking.runs import Tracker

logger = logging.getLogger(__name__)
_PLACES = ("model", "collection", "embeddings", "tuples", "out", "limits", "tracking_uri")
FIGURES, PICTURE = "adapters.json", "adapters.png"
_COPIES = 6  # of the embeddings in memory at once, by a candidate and its validation


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptJobConfig:
    """Train adapters and put the best one into a model, if it gains."""

    collection: str
    """Folder or URI of the collection that was embedded; with labels, unless --tuples is given."""
    embeddings: str
    """Folder or URI of that collection's embeddings by that model (python -m ray_jobs.embed)."""
    model: str
    """Folder or URI of a bundle, of any network, with whitening or without."""
    tuples: str = ""
    """Folder or URI of the collection's tuples (python -m ray_jobs.reconstruct): whose pairs match. Empty: photos of
    one label do."""
    out: str
    """Folder or URI of the bundle to make."""
    adapt: Annotated[AdaptConfig, tyro.conf.arg(name="")] = field(default_factory=AdaptConfig)
    """Which adapters, and what one must gain."""
    tracking_uri: str = ""
    """MLflow store; empty: MLFLOW_TRACKING_URI, else SQLite in the folder that --out lies in."""
    limits: Annotated[TimeLimits, tyro.conf.arg(name="")] = field(default_factory=TimeLimits)
    """How long to try."""


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "model", AdaptJobConfig
SPEED = ("limits", "tracking_uri")


def logged(cfg: AdaptJobConfig) -> Manifest:
    """`main` within a run of MLflow's experiment `adapters`, and its figures as a table."""
    must_be_sealed(collection=cfg.collection, embeddings=cfg.embeddings, model=cfg.model)
    out = Folder.of(cfg.out)
    with session(cfg.limits, writes=out, reads=[cfg.embeddings, cfg.model]):
        from ray_jobs.runtime.tracking.runs import open_run
        from ray_jobs.runtime.tracking.store import store_uri

        inputs_of(cfg)
        work = {name: value for name, value in plain(cfg).items() if name not in SPEED}
        store = store_uri(cfg.tracking_uri or None, out.parent)
        name, key = f"{out.name}-{digest(work)[:6]}", digest([out.uri, work])[:24]
        tracker = open_run(store, experiment="adapters", key=key, name=name, workspace=out.parent)
        try:
            done = main(cfg, tracker)
        except BaseException:
            tracker.finish("FAILED")
            raise
        tracker.finish()
    print(f"\n{as_text(out.read_json(FIGURES))}\n\n{verdict(done, out)}", flush=True)
    return done


@alone
def main(cfg: AdaptJobConfig, tracker: Tracker | None = None) -> Manifest:
    """Train, try and seal, or find it done. Returns the new bundle's manifest; `counts["adapter"]` says what was kept.

    Args: tracker: the MLflow run for figures and their picture.

    Raises: ValueError for inputs that were not made from each other, or in which there is nothing to train on, or to
        validate on.
    """
    out = Folder.of(cfg.out)
    work: dict[str, Any] = {"config": cfg, "inputs": inputs_of(cfg), "ignore": _PLACES}
    if (done := begin(out, kind="model", **work)) is not None:
        logger.info("adapt: %s is sealed already: %s", out, verdict(done, out))
        return done
    with session(cfg.limits, writes=out, reads=[cfg.embeddings, cfg.model]):
        on_cluster(make, cfg, out, work, says="adapt", needs=needs_of(cfg))
    manifest = read_manifest(out, "model")
    logger.info("adapt: %s", verdict(manifest, out))
    if tracker is not None:
        _tell(tracker, cfg, out)
    return manifest


def inputs_of(cfg: AdaptJobConfig) -> dict[str, str]:
    """Fingerprints of all that is read. Raises: ValueError for what was not made from each other."""
    collected = read_manifest(Folder.of(cfg.collection), "collection").fingerprint
    made = read_manifest(Folder.of(cfg.model), "model").fingerprint
    embedded = read_manifest(Folder.of(cfg.embeddings), "embeddings")
    check_made_from(cfg.embeddings, embedded, "collection", collected)
    check_made_from(cfg.embeddings, embedded, "model", made)
    load_spec(cfg.model).check_may_be_mapped()
    inputs = {"model": made, "embeddings": embedded.fingerprint, "collection": collected}
    if cfg.tuples:
        tuples = read_manifest(Folder.of(cfg.tuples), "tuples")
        check_made_from(cfg.tuples, tuples, "collection", collected)
        inputs["tuples"] = tuples.fingerprint
    if load_spec(cfg.model).adapter != "none":
        raise ValueError(f"The model {cfg.model} has an adapter already. Name the model that it was made of.")
    return inputs


def needs_of(cfg: AdaptJobConfig) -> Needs:
    """One core, and memory for as many embeddings as may be read."""
    counts = read_manifest(Folder.of(cfg.embeddings), "embeddings").counts
    most = min(int(counts["num"]), cfg.adapt.max_photos + cfg.adapt.max_val_photos)
    return Needs(memory=GB + _COPIES * 4 * most * int(counts["dim"]))


def make(cfg: AdaptJobConfig, out: Folder, work: dict[str, Any], progress: Progress = silent) -> None:
    """Read the embeddings, train the candidates, choose, and seal the new bundle."""
    from retrieval.models.bundle import keep_history, kept_counts, load_network, save_bundle
    from retrieval.models.network import with_adapter
    from retrieval.reports.charts import retrieval_png
    from retrieval.training.adapters.choice import IDENTITY, choose, told
    from retrieval.training.adapters.fit import fit
    from retrieval.training.adapters.vectors import read_known

    bundle, config, begun = Folder.of(cfg.model), cfg.adapt, time.monotonic()
    tuples = Folder.of(cfg.tuples) if cfg.tuples else None
    known = read_known(Folder.of(cfg.embeddings), Folder.of(cfg.collection), tuples, config)
    seconds = {"seconds/read": time.monotonic() - begun}
    fitted = {name: fit(name, known, config, progress) for name in config.candidates}
    choice = choose({name: one.adapter for name, one in fitted.items()}, known.val, config.least_gain)
    counts: dict[str, Any] = kept_counts(read_manifest(bundle)) | {"adapter": choice.winner}
    for name, side in (("train", known.train), ("val", known.val)):
        counts |= {f"adapter_{name}_photos": len(side.labels), f"adapter_{name}_labels": side.num_labels}
        counts |= {f"adapter_{name}_left_out": side.left_out}
        if side.left_out:
            logger.warning("adapt: %d photos of %s are beyond the limit and left out", side.left_out, name)
    net = load_network(bundle)
    if choice.winner != IDENTITY:
        net = with_adapter(net, fitted[choice.winner].adapter)
    for name, one in fitted.items():
        seconds |= {f"seconds/{name}/epoch": sum(row.pop("seconds") for row in one.history) / max(1, len(one.history))}
    history = {name: one.history for name, one in fitted.items()}
    figures = told(choice)
    out.write_json(FIGURES, {"systems": figures, "history": history}, about={})
    out.write_bytes(PICTURE, retrieval_png({"systems": figures}))
    save_bundle(net, out, counts=counts, run=keep_history(bundle, out) | seconds, **work)


def verdict(manifest: Manifest, out: Folder) -> str:
    """In words, whether it gains."""
    figures, winner = out.read_json(FIGURES)["systems"], manifest.counts["adapter"]
    if winner == "identity":
        return (
            f"no adapter gains enough on {manifest.counts['adapter_val_labels']} people or places that none was "
            f"trained on. {out} is the model as it was: go on with that one and its embeddings."
        )
    own, people = figures[winner], manifest.counts["adapter_val_labels"]
    return (
        f"{winner} is kept: mAP {figures['identity']['mAP']:.4f} -> {own['mAP']:.4f} (+{own['gain']:.4f}, standard "
        f"error {own['error']:.4f}) on {people} people or places that it was not trained on. Embed the gallery with "
        f"{out}."
    )


def as_text(told: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = [f"{'':12}{'recall@1':>10}{'recall@10':>11}{'mAP':>9}{'gain':>10}{'error':>9}"]
    for name, one in told["systems"].items():
        gain = f"{one['gain']:>+10.4f}{one['error']:>9.4f}" if "gain" in one else " " * 19
        chosen = "  <- kept" if one["chosen"] else ""
        lines.append(f"{name:12}{one['recall@1']:>10.4f}{one['recall@10']:>11.4f}{one['mAP']:>9.4f}{gain}{chosen}")
    return "\n".join(lines)


def _tell(tracker: Tracker, cfg: AdaptJobConfig, out: Folder) -> None:
    tracker.log_params(dataclasses.replace(cfg, limits=TimeLimits()), prefix="adapt")
    tracker.log_inputs({"collection": Folder.of(cfg.collection), "model": out})
    told = out.read_json(FIGURES)
    for name, figures in told["systems"].items():
        tracker.log_metrics(figures, prefix=f"val/{name}")
    for name, history in told["history"].items():
        for row in history:
            tracker.log_metrics({"loss": row["loss"]}, step=row["epoch"], prefix=f"train/{name}")
    tracker.log_files(out, (FIGURES, PICTURE), to="adapters")


if __name__ == "__main__":
    command(AdaptJobConfig, logged, __doc__)
