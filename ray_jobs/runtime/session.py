"""What every job shares: the connection to Ray, and work on the cluster as one task. Work in parts: `parts`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_jobs.runtime import places
from ray_jobs.runtime.command import of_the_user
from ray_jobs.runtime.news import quiet
from ray_jobs.runtime.news.progress import Teller, mailbox_of_session, told, watch
from ray_jobs.runtime.work import parts
from ray_jobs.runtime.work.limits import TRIES, Limits
from ray_jobs.runtime.work.worker import clocked, hide_gpus, takes_progress
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.patience import current, patience, patiently

logger = logging.getLogger(__name__)
_open: list[Limits] = []


@contextmanager
def session(
    limits: Limits | None = None, *, writes: str | Folder = "", reads: Sequence[str | Folder] = ()
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
    before = parts.set_limits(_open[0] if _open else limits or Limits())
    _open.append(parts.limits())
    try:
        with quiet.kept_in(logs), patience():
            if outermost and writes:
                places.must_be_seen(writes, list(filter(None, reads)))
            yield
    finally:
        _open.pop()
        parts.set_limits(before)
        if mine:
            ray.shutdown()


def on_cluster(work: Callable[..., Any], *args: Any, says: str = "", **kwargs: Any) -> Any:
    """Run a function as one Ray task: work that may grow with the collection stays out of the driver.

    An error that the user can mend comes back as the one raised there, any other with the worker's stack. A task whose
    worker dies is begun again, three times in all.

    Args: says: what the step is called while it lasts, and told by `work` if it takes a `progress`. Empty: not shown.
    """
    if says:
        with watch(says, mailbox=mailbox_of_session()) as step:
            return _one_task(says, work, step.teller, *args, **kwargs)
    return _one_task(work.__name__, work, Teller(None), *args, **kwargs)


def started(work: Callable[..., Any], *args: Any) -> Any:
    """A reference to what `work` will return, begun as one Ray task, for tasks of `on_cluster` to fetch. If its worker
    dies it is begun again, three times in all."""
    return _task_of(work, TRIES).remote(Teller(None), *args)


def _one_task(what: str, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    import ray
    from ray.exceptions import RayTaskError

    ends: list[str] = []
    while True:
        try:
            return ray.get(_task_of(work).remote(*args, **kwargs))
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


def _task_of(work: Callable[..., Any], tries: int = 1) -> Any:
    """`work` as a task of Ray under its own name, given a teller before its own arguments. It sees no GPU, waits for
    storage as long as whoever asks, ends when its time is over and is begun so many times by Ray itself."""
    import ray

    held, seconds = parts.limits(), current()

    def whole(*args: Any, **kwargs: Any) -> Any:
        teller, *given = args
        if takes_progress(work):
            kwargs["progress"] = teller
        hide_gpus()
        with clocked(held), told(teller), patience(seconds):
            return patiently(lambda: work(*given, **kwargs), work.__name__.replace("_", " "))

    whole.__name__ = whole.__qualname__ = work.__name__
    return ray.remote(whole).options(max_retries=tries - 1)


def cpus_per_worker(num_workers: int) -> int:
    """Cores for each of the workers when they are spread over the nodes that have any; one at least."""
    import ray

    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cores = list(filter(None, cores)) or [1]
    return max(1, min(cores) // max(1, -(-num_workers // len(cores))))
