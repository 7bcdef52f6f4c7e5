"""Workers of Ray Train, which train together: how often they may end, and the photo that ends them.

A photo that crashes its decoder, or holds it beyond its time, ends a worker, and with it the attempt of all. It would
end each that follows. So after two ends the photos are looked at, once, by the whole cluster as work in parts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray_jobs.runtime.news.progress import mailbox_of_session, watch
from ray_jobs.runtime.parallel.fitting import to_its_end
from ray_jobs.runtime.parallel.parts import run_parts
from retrieval.artifacts.collection import image_parts
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.storage.patience import current

if TYPE_CHECKING:
    from ray.train import RunConfig, ScalingConfig

logger = logging.getLogger(__name__)
_NAMED = 10  # photos, in a message


def train_together(
    loop: Callable[[Mapping[str, Any]], None],
    settings: Mapping[str, Any],
    *,
    scaling: ScalingConfig,
    run: RunConfig,
    kept: Folder,
    max_failures: int,
    look: Callable[[], None],
) -> None:
    """Run `loop` in each worker, until it is done in all.

    Args:
        loop: given `settings`, whom it tells how far it is (`progress`), how long it waits for storage (`patience`).
        run: under one name, each attempt goes on from the last checkpoint. kept: the folder that Ray keeps it in.
        max_failures: how often workers that ended, or failed, are replaced.
        look: what to blame? Asked once, at the second failure or the last; raises if it finds something.

    Raises: what `look` did; WorkerGroupError after too many failures.
    """
    from ray.train import FailureConfig
    from ray.train.torch import TorchTrainer

    def attempt(failures: int) -> None:
        run.failure_config = FailureConfig(max_failures=failures)
        with watch("train", mailbox=mailbox_of_session()) as step:
            work = {**settings, "progress": step.teller, "patience": current()}
            given: dict[str, Any] = {"train_loop_config": work, "scaling_config": scaling, "run_config": run}
            to_its_end(lambda: TorchTrainer(loop, **given).fit(), kept)

    repeated(attempt, max_failures, look)


def repeated(attempt: Callable[[int], None], max_failures: int, look: Callable[[], None]) -> None:
    """`attempt`, which itself stands so many failures as it is told, until it is through. See `train_together`."""
    from ray.train import WorkerGroupError

    left, looked = max_failures, False
    while True:
        stands = left if looked else min(left, 1)
        try:
            return attempt(stands)
        except WorkerGroupError as error:
            left -= stands + 1
            if not looked:
                logger.warning("train: workers ended (%s); looking at the photos", _first_line(error))
                look()
                looked = True
            if left < 0:
                raise
            logger.warning("train: no photo does so alone; going on from the last checkpoint")


def look_at_photos(collection: Folder, splits: Sequence[str]) -> None:
    """Decode the photos that are trained on once more, all over the cluster.

    Raises: ValueError that names those that end, or fail, what reads them, with the native error.
    """
    from retrieval.data.recheck import decode_part, try_stored

    manifest = read_manifest(collection, "collection")
    rows = run_parts(
        "train: looking",
        image_parts(manifest),
        decode_part,
        total_items=manifest.counts["stored"],
        fixed={"collection": collection, "splits": tuple(splits)},
        attempt=try_stored,
    )
    if left := sorted((bad for row in rows for bad in row["left"]), key=lambda bad: bad["image_id"]):
        raise ValueError(refused(collection, left))


def refused(collection: Folder, left: Sequence[Mapping[str, str]]) -> str:
    """What is said of photos that cannot be trained on. Args: left: image_id, reason and detail of each."""
    named = "; ".join(f"{bad['image_id']}: {bad['reason']} ({bad['detail']})" for bad in left[:_NAMED])
    more = f"; and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return (
        f"train: {len(left)} photos of {collection} cannot be read by those that train: {named}{more}. Each was read "
        f"when the collection was made, so its bytes were damaged since, or another decoder is at work here. Training "
        f"leaves none out: what it draws must not depend on where it ran. Ingest the photos again into a new folder "
        f"(python -m ray_jobs.ingest): what cannot be read is left out there, and listed."
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), type(error).__name__)
