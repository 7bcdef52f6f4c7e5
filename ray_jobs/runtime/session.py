"""What every job shares: the connection to Ray, and work on the cluster as one task. Work in parts: `parts`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ray_jobs.runtime import places
from ray_jobs.runtime.command import of_the_user
from ray_jobs.runtime.news import quiet
from ray_jobs.runtime.news.progress import Teller, mailbox_of_session, told, watch
from ray_jobs.runtime.parallel import parts, placement, sight
from ray_jobs.runtime.parallel.limits import TRIES, Limits, TimeLimits
from ray_jobs.runtime.parallel.placement import Needs, slots, wait_for
from ray_jobs.runtime.parallel.worker import clocked, hide_gpus, takes_progress
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.patience import current, patience, patiently

logger = logging.getLogger(__name__)
_LOOK_EVERY = 30.0  # seconds between two looks whether there is still a machine for a task
_open: list[Limits] = []


@contextmanager
def session(
    limits: TimeLimits | None = None, *, writes: str | Folder = "", reads: Sequence[str | Folder] = ()
) -> Iterator[None]:
    """Set up logging and Ray for the length of a job.

    Joins the cluster named by RAY_ADDRESS (as `ray job submit` sets it), or starts a local one that ends with the job.
    A Ray already initialised by the caller (a test, `pipeline`) is used and left running.

    Args: limits: for all work of the job. Within another session, as those of a pipeline's steps are, that one's hold.
        writes, reads: where the job does so; asked before Ray is started, and then of every node, see `places`.

    Raises: ValueError or Outage if a store does not answer, or a node does not see a path that is no store's.
    """
    quiet.set_up_logging()
    outermost = not _open
    if outermost:
        places.must_answer(*filter(None, (writes, *reads)))
    import ray

    quiet.hush()
    mine, logs = not ray.is_initialized(), None
    if mine:
        # Local workers import this checkout through the driver's sys.path; a submitted job through its working_dir.
        # With its dashboard: Ray Train asks it about its own actors and complains every second where there is none.
        # What workers print stays in their logs; what they have to say comes by way of `progress`.
        context = ray.init(logging_level=logging.WARNING, log_to_driver=False)
        logs = Path(context.address_info["session_dir"]) / "logs"
    quiet.hush()
    before = parts.set_limits(_open[0] if _open else Limits.of(limits))
    _open.append(parts.limits())
    try:
        with quiet.kept_in(logs), patience():
            if outermost and writes:
                places.must_be_seen(writes, list(filter(None, reads)))
            # Machines that are there now were asked. Those that come later are asked by the work that they are given.
            grows = outermost and writes and placement.can_grow()
            with sight.looked_for(writes, list(filter(None, reads))) if grows else nullcontext():
                yield
    finally:
        _open.pop()
        parts.set_limits(before)
        if mine:
            ray.shutdown()


def on_cluster(work: Callable[..., Any], *args: Any, says: str = "", needs: Needs | None = None, **kwargs: Any) -> Any:
    """Run a function as one Ray task: work that may grow with the collection stays out of the driver.

    An error that the user can mend comes back as the one raised there, any other with the worker's stack. A task whose
    worker dies is begun again, three times in all.

    Args:
        says: what the step is called while it lasts, and told by `work` if it takes a `progress`. Empty: not shown.
        needs: what it is given; None: one core. It is waited for as long as a job waits for machines.
    """
    needs = needs or Needs()
    if says:
        with watch(says, mailbox=mailbox_of_session()) as step:
            return _one_task(says, needs, work, step.teller, *args, **kwargs)
    return _one_task(work.__name__.replace("_", " ").strip(), needs, work, Teller(None), *args, **kwargs)


def started(work: Callable[..., Any], *args: Any, needs: Needs | None = None) -> Any:
    """A reference to what `work` will return, begun as one Ray task, for tasks of `on_cluster` to fetch. If its worker
    dies it is begun again, three times in all. What it needs is waited for, as there."""
    given = wait_for(needs or Needs(), work.__name__.replace("_", " "), parts.limits().wait_seconds)
    return _task_of(work, given, TRIES).remote(Teller(None), *args)


def _one_task(what: str, needs: Needs, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    import ray
    from ray.exceptions import RayTaskError

    ends: list[str] = []
    while True:
        given = wait_for(needs, what, parts.limits().wait_seconds)
        ref = _task_of(work, given).remote(*args, **kwargs)
        try:
            while not ray.wait([ref], timeout=_LOOK_EVERY)[0]:
                wait_for(given, what, parts.limits().wait_seconds)  # its machine may go before it has begun
            return ray.get(ref)
        except RayTaskError as error:
            if of_the_user(error):
                raise error.cause from None
            raise
        except parts.deaths() as death:
            ends.append(type(death).__name__)
            if len(ends) >= TRIES:
                raise ValueError(
                    f"{what} ended its worker {TRIES} times ({', '.join(ends)}). {parts.ADVICE}"
                ) from death
            logger.warning("%s ended its worker (%s); once more", what, ends[-1])


def _task_of(work: Callable[..., Any], needs: Needs, tries: int = 1) -> Any:
    """`work` as a task of Ray under its own name, given a teller before its own arguments. It sees no GPU, waits for
    storage as long as whoever asks, ends when its time is over and is begun so many times by Ray itself."""
    import ray

    held, seconds, sees = parts.limits(), current(), sight.of_session()

    def whole(*args: Any, **kwargs: Any) -> Any:
        teller, *given = args
        if takes_progress(work):
            kwargs["progress"] = teller
        hide_gpus()
        sight.must_be_here(sees)
        with clocked(held), told(teller), patience(seconds):
            return patiently(lambda: work(*given, **kwargs), work.__name__.replace("_", " "))

    whole.__name__ = whole.__qualname__ = work.__name__
    return ray.remote(whole).options(max_retries=tries - 1, **needs.options())


def cpus_per_worker(num_workers: int, gpus: float = 0) -> int:
    """Cores for each of so many workers with `gpus` each: as many as the machines that are there have for all of them;
    one at least."""
    import ray

    most = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=1)
    fits = (cpus for cpus in range(most, 1, -1) if slots(Needs(cpus=cpus, gpus=gpus)) >= num_workers)
    return next(fits, 1)
