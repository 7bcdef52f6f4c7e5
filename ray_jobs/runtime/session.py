"""What every job shares: logging, the connection to Ray, and running numbered parts with progress."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import ActorPoolStrategy
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
    name: str,
    parts: Sequence[int],
    work: Callable[..., Any] | type,
    *,
    total_items: int = 0,
    fixed: Mapping[str, Any] | None = None,
    takes: str = "part",
    actors: int = 1,
    **resources: float,
) -> Iterator[dict[str, Any]]:
    """Do `work` once for each part number, all over the cluster; yield the small row it returns, as JSON has it.

    A part is done again if its worker dies, so `work` must write atomically under a name made from the part's number:
    bytes go worker -> storage, and only a row of counts comes back.

    Args:
        work: a function, called as work(part=n, **fixed); or a class, made once in each actor as work(**fixed), whose
            object is called with part=n. Returns a mapping or a dataclass; of its photos, `taken` is counted.
        total_items: photos in all parts together.
        fixed: the other arguments. An object reference among them arrives as what it refers to.
        takes: the name of the argument that is given the part's number.
        actors: how many, if `work` is a class.
        resources: what Ray sets aside for each task or actor, such as num_cpus=1.

    Raises: ValueError that `work` raised: something the user can mend, in one sentence. Other errors with their stack.
    """
    if not parts:
        return
    # One block a part: a part is the unit of scheduling, retry and resume. Each costs Ray about 20 ms.
    dataset = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    how: dict[str, Any] = {"work": work, "fixed": dict(fixed or {}), "takes": takes}
    if isinstance(work, type):
        how = {"fn_constructor_kwargs": how, "compute": ActorPoolStrategy(size=actors)}
    else:
        how = {"fn_kwargs": how}
    done = dataset.map_batches(_named_like(work), batch_size=1, **how, **resources)  # type: ignore[arg-type]
    started, items = time.monotonic(), 0
    last = started
    for finished, batch in enumerate(done.iter_rows(), start=1):
        if batch["refused"]:
            raise ValueError(batch["refused"])
        row = json.loads(batch["row"])
        items += int(row.get("taken", 0))
        now = time.monotonic()
        if now - last > 5 or finished == len(parts):
            last = now
            rate = items / max(now - started, 1e-9)
            of = f" of {total_items}" if total_items else ""
            logger.info("%s: part %d of %d, %d%s items, %.0f/s", name, finished, len(parts), items, of, rate)
        yield row


class _Actor:
    """An object that is made once and does one part after another."""

    def __init__(self, work: type, fixed: dict[str, Any], takes: str) -> None:
        self._work, self._takes = work(**_fetched(fixed)), takes

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return _row(self._work, {self._takes: int(batch["part"][0])})


def _task(batch: dict[str, Any], work: Callable[..., Any], fixed: dict[str, Any], takes: str) -> dict[str, Any]:
    return _row(work, {**_fetched(fixed), takes: int(batch["part"][0])})


def _row(work: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """A batch of one row, of the same columns whatever `work` returns."""
    try:
        done = work(**arguments)
    except ValueError as error:  # the user's to mend: said in the driver in one sentence, without Ray's stack
        logger.info("part %s", arguments, exc_info=True)  # and whole in the worker's own log
        return {"row": [""], "refused": [str(error)]}
    row: Any = dataclasses.asdict(done) if dataclasses.is_dataclass(done) else done  # type: ignore[arg-type]
    return {"row": [json.dumps(row)], "refused": [""]}


def _fetched(fixed: dict[str, Any]) -> dict[str, Any]:
    """What all parts share stays in the cluster's memory, once a node, where workers read it without a copy."""
    return {name: ray.get(value) if isinstance(value, ray.ObjectRef) else value for name, value in fixed.items()}


def _named_like(work: Callable[..., Any] | type) -> Any:
    """What does a batch with `work`, under its name, by which Ray's processes, logs and dashboard call it."""
    if isinstance(work, type):
        return type(work.__name__, (_Actor,), {})
    batched = functools.partial(_task)
    batched.__name__ = work.__name__  # type: ignore[attr-defined]
    return batched
