"""What every job shares: logging, the connection to Ray, and running numbered parts with progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayTaskError

logger = logging.getLogger(__name__)


@contextmanager
def session() -> Iterator[None]:
    """Set up logging and Ray for the length of a job.

    Joins the cluster named by RAY_ADDRESS (as `ray job submit` sets it), or starts a local one that ends with the job.
    A Ray already initialised by the caller (a test, `pipeline`) is used and left running.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    mine = not ray.is_initialized()
    if mine:
        # Local workers import this checkout through the driver's sys.path; a submitted job through its working_dir.
        # With its dashboard: Ray Train asks it about its own actors and complains every second where there is none.
        ray.init(logging_level=logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # `run_parts` says how far a job is, in items
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def on_cluster(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a function as one Ray task: work that may grow with the collection stays out of the driver.

    An error comes back as the one raised there, without Ray's wrapping.
    """
    try:
        return ray.get(ray.remote(work).remote(*args, **kwargs))
    except RayTaskError as error:
        raise error.cause from None


def run_parts(
    name: str, parts: list[int], work: Callable[..., Any] | type, *, total_items: int = 0, **map_batches_args: Any
) -> Iterator[dict[str, Any]]:
    """Run `work` once per part number on the cluster with Ray Data; yield its one small result row per part.

    `work` takes and returns a batch dict: it gets {"part": array of one int} and writes its own output file, so that
    bytes go worker -> storage and only a row of counts comes back. A part is retried whole if its worker dies, so
    `work` must write atomically under a name made from the part number.
    """
    if not parts:
        return
    # One block a part: a part is the unit of scheduling, retry and resume. Each costs Ray about 20 ms.
    dataset = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    done = ray.data.Dataset.map_batches(dataset, work, batch_size=1, **map_batches_args)
    started, items = time.monotonic(), 0
    last = started
    for finished, row in enumerate(done.iter_rows(), start=1):
        items += int(row.get("taken", 0))
        now = time.monotonic()
        if now - last > 5 or finished == len(parts):
            last = now
            rate = items / max(now - started, 1e-9)
            of = f" of {total_items}" if total_items else ""
            logger.info("%s: part %d of %d, %d%s items, %.0f/s", name, finished, len(parts), items, of, rate)
        yield row
