"""Whiten: a model, its embeddings and training tuples -> the same model with whitening learned on them, applied last.

    python -m ray_jobs.whiten --model W/model --collection W/collection --embeddings W/embeddings \\
        --tuples W/tuples --out W/whitened

Whitening must be learned at the size and scales that it is used at: embed with those, then whiten. The sums are taken
by Ray tasks, each over its share of the embeddings; only sums, of a size that depends on the dimension, are added up.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.parallel.limits import TimeLimits
from ray_jobs.runtime.session import on_cluster, session, started
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, begin, check_made_from, read_manifest
from retrieval.data.settings import Split
from retrieval.models.spec import load_spec
from retrieval.training.settings import WhitenConfig

if TYPE_CHECKING:
    from retrieval.training import whitening_fit

logger = logging.getLogger(__name__)
_PLACES = ("model", "collection", "embeddings", "tuples", "out", "limits")
_PAIRS_PER_TASK = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class WhitenJobConfig:
    """Learn whitening and put it into a model."""

    model: str
    """Folder or URI of a bundle without whitening."""
    collection: str
    """Folder or URI of the collection that was embedded."""
    embeddings: str
    """Folder or URI of that collection's embeddings by that model (python -m ray_jobs.embed)."""
    tuples: str = ""
    """Folder or URI of the collection's tuples (python -m ray_jobs.reconstruct): whose pairs match. Not for pca."""
    out: str
    """Folder or URI of the bundle to make."""
    splits: tuple[Split, ...] = ("train",)
    """Which images it may be learned on, by split of the catalog: never those it is tested on."""
    whiten: WhitenConfig = field(default_factory=WhitenConfig)
    """What whitening."""
    limits: Annotated[TimeLimits, tyro.conf.arg(name="")] = field(default_factory=TimeLimits)
    """How long to try."""


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "model", WhitenJobConfig
SPEED = ("limits",)


@alone
def main(cfg: WhitenJobConfig) -> Manifest:
    """Learn, or find it done. Returns the new bundle's manifest.

    Raises: ValueError for inputs that were not made from each other, or too few pairs.
    """
    out, bundle = Folder.of(cfg.out), Folder.of(cfg.model)
    inputs = inputs_of(cfg)
    work: dict[str, Any] = {"config": cfg, "inputs": inputs, "ignore": _PLACES}
    if (done := begin(out, kind="model", **work)) is not None:
        logger.info("whiten: %s is sealed already", out)
        return done
    with session(cfg.limits, writes=out, reads=[cfg.embeddings, cfg.model]):
        shares = _shares(cfg)
        logger.info("whiten: %s whitening from %d shares", cfg.whiten.method, len(shares))
        # In a list, so that the task fetches one share at a time.
        on_cluster(_finish, bundle, out, [shares], cfg.whiten, work, says="whiten")
    return read_manifest(out, "model")


def inputs_of(cfg: WhitenJobConfig) -> dict[str, str]:
    if cfg.whiten.method == "learned" and not cfg.tuples:
        raise ValueError("Learned whitening needs matching pairs. Give --tuples, or --whiten.method pca.")
    collected = read_manifest(Folder.of(cfg.collection), "collection").fingerprint
    made = read_manifest(Folder.of(cfg.model), "model").fingerprint
    embedded = read_manifest(Folder.of(cfg.embeddings), "embeddings")
    check_made_from(cfg.embeddings, embedded, "collection", collected)
    check_made_from(cfg.embeddings, embedded, "model", made)
    load_spec(cfg.model).check_may_be_mapped()
    inputs = {"model": made, "embeddings": embedded.fingerprint, "collection": collected}
    if cfg.whiten.method == "learned":
        tuples = read_manifest(Folder.of(cfg.tuples), "tuples")
        check_made_from(cfg.tuples, tuples, "collection", collected)
        inputs["tuples"] = tuples.fingerprint
    return inputs


def _shares(cfg: WhitenJobConfig) -> list[Any]:
    """References to the sums of each share of the descriptors, and of the pairs."""
    import ray

    from retrieval.training import whitening_fit

    embeddings, collection = Folder.of(cfg.embeddings), Folder.of(cfg.collection)
    parts = on_cluster(whitening_fit.parts_of, collection, cfg.splits)
    num = max(1, min(len(parts), 2 * int(ray.cluster_resources().get("CPU", 1))))
    of_parts = whitening_fit.moments_of_parts
    shares = [
        started(of_parts, embeddings, collection, cfg.splits, some.tolist()) for some in np.array_split(parts, num)
    ]
    if cfg.whiten.method == "learned":
        pairs = started(whitening_fit.pairs_of, Folder.of(cfg.tuples), cfg.whiten)
        tasks = -(-cfg.whiten.max_pairs // _PAIRS_PER_TASK)
        shares += [started(pair_share, embeddings, collection, cfg.splits, pairs, n, tasks) for n in range(tasks)]
    return shares


def pair_share(
    embeddings: Folder, collection: Folder, splits: tuple[str, ...], pairs: whitening_fit.Pairs, number: int, of: int
) -> Any:
    """Sums over every `of`-th pair; nothing where there are fewer pairs than tasks."""
    from retrieval.training import whitening_fit

    mine = (pairs[0][number::of], pairs[1][number::of])
    return whitening_fit.moments_of_pairs(embeddings, collection, splits, mine) if mine[0] else None


def _finish(bundle: Folder, out: Folder, shares: list[list[Any]], config: WhitenConfig, work: dict[str, Any]) -> None:
    """Add up the shares, solve, and seal the new bundle."""
    import ray

    from retrieval.models.bundle import keep_history, kept_counts, load_network, save_bundle
    from retrieval.training import whitening_fit

    moments: Any = (found for found in (ray.get(share) for share in shares[0]) if found is not None)
    net = whitening_fit.whiten(load_network(bundle), moments, config)
    save_bundle(net, out, counts=kept_counts(read_manifest(bundle)), run=keep_history(bundle, out), **work)


if __name__ == "__main__":
    command(WhitenJobConfig, main, __doc__)
