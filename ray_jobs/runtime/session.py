"""What every job shares: the connection to Ray, work on the cluster as one task or in numbered parts."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_jobs.runtime import quiet
from ray_jobs.runtime.command import of_the_user
from ray_jobs.runtime.progress import Teller, mailbox_of_session, told, watch

logger = logging.getLogger(__name__)


@contextmanager
def session() -> Iterator[None]:
    """Set up logging and Ray for the length of a job.

    Joins the cluster named by RAY_ADDRESS (as `ray job submit` sets it), or starts a local one that ends with the job.
    A Ray already initialised by the caller (a test, `pipeline`) is used and left running.
    """
    quiet.set_up_logging()
    import ray
    import ray.data

    quiet.hush()
    mine, logs = not ray.is_initialized(), None
    if mine:
        # Local workers import this checkout through the driver's sys.path; a submitted job through its working_dir.
        # With its dashboard: Ray Train asks it about its own actors and complains every second where there is none.
        # What workers print stays in their logs; what they have to say comes by way of `progress`.
        context = ray.init(logging_level=logging.WARNING, log_to_driver=False)
        logs = Path(context.address_info["session_dir"]) / "logs"
    ray.data.DataContext.get_current().enable_progress_bars = False  # `run_parts` has its own
    quiet.hush()
    try:
        with quiet.kept_in(logs):
            yield
    finally:
        if mine:
            ray.shutdown()


def on_cluster(work: Callable[..., Any], *args: Any, says: str = "", **kwargs: Any) -> Any:
    """Run a function as one Ray task: work that may grow with the collection stays out of the driver.

    An error that the user can mend comes back as the one raised there, any other with the worker's stack.

    Args: says: what the step is called while it lasts, and told by `work` if it takes a `progress`. Empty: not shown.
    """
    if says:
        with watch(says, mailbox=mailbox_of_session()) as step:
            return _one_task(_told, step.teller, work, *args, **kwargs)
    return _one_task(work, *args, **kwargs)


def _told(teller: Teller, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with told(teller):
        return work(*args, **kwargs, **({"progress": teller} if _takes_progress(work) else {}))


def _one_task(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(ray.remote(work).remote(*args, **kwargs))
    except RayTaskError as error:
        if of_the_user(error):
            raise error.cause from None
        raise


def cpus_per_worker(num_workers: int) -> int:
    """Cores for each of the workers when they are spread over the nodes that have any; one at least."""
    import ray

    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cores = list(filter(None, cores)) or [1]
    return max(1, min(cores) // max(1, -(-num_workers // len(cores))))


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
    import ray
    from ray.data import ActorPoolStrategy

    cores = int(ray.cluster_resources().get("CPU", 1))
    total = total_items or len(parts)
    with watch(name, total, in_parts=True, mailbox=mailbox_of_session(), workers=cores) as step:
        # One block a part: a part is the unit of scheduling, retry and resume. Each costs Ray about 20 ms.
        dataset = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        how: dict[str, Any] = {"work": work, "fixed": dict(fixed or {}), "takes": takes}
        how["teller"] = step.teller if total_items else step.teller.of_lines()
        if isinstance(work, type):
            how = {"fn_constructor_kwargs": how, "compute": ActorPoolStrategy(size=actors)}
        else:
            how = {"fn_kwargs": how}
        done = dataset.map_batches(_named_like(work), batch_size=1, **how, **resources)  # type: ignore[arg-type]
        for batch in quiet.without_native_chatter(done.iter_rows()):
            if batch["refused"]:
                raise ValueError(batch["refused"])
            row = json.loads(batch["row"])
            step.finished(batch["part"], row.get("taken", 0) if total_items else 1)
            yield row


class _Actor:
    """An object that is made once and does one part after another."""

    def __init__(self, work: type, fixed: dict[str, Any], takes: str, teller: Teller) -> None:
        with told(teller):
            self._work = work(**_fetched(fixed))
        self._takes, self._teller = takes, teller
        self._reports = _takes_progress(work.__call__)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return _row(int(batch["part"][0]), self._work, {}, self._takes, self._teller, reports=self._reports)


def _task(
    batch: dict[str, Any], work: Callable[..., Any], fixed: dict[str, Any], takes: str, teller: Teller
) -> dict[str, Any]:
    part = int(batch["part"][0])
    return _row(part, work, _fetched(fixed), takes, teller, reports=_takes_progress(work))


def _row(
    part: int, work: Callable[..., Any], fixed: dict[str, Any], takes: str, teller: Teller, *, reports: bool
) -> dict[str, Any]:
    """A batch of one row, of the same columns whatever `work` returns."""
    arguments = fixed | {takes: part}
    if reports:
        arguments["progress"] = teller.of(part)
    try:
        with told(teller, part=part):
            done: Any = work(**arguments)
    except ValueError as error:
        if not of_the_user(error):
            raise
        # The user's to mend: said in the driver in one sentence, without Ray's stack.
        traceback.print_exc()  # and whole in the worker's own log
        return {"part": [part], "row": [""], "refused": [str(error)]}
    row = dataclasses.asdict(done) if dataclasses.is_dataclass(done) else done  # type: ignore[arg-type]
    return {"part": [part], "row": [json.dumps(row)], "refused": [""]}


def _takes_progress(work: Callable[..., Any]) -> bool:
    return "progress" in inspect.signature(work).parameters


def _fetched(fixed: dict[str, Any]) -> dict[str, Any]:
    """What all parts share stays in the cluster's memory, once a node, where workers read it without a copy."""
    import ray

    return {name: ray.get(value) if isinstance(value, ray.ObjectRef) else value for name, value in fixed.items()}


def _named_like(work: Callable[..., Any] | type) -> Any:
    """What does a batch with `work`, under its name, by which Ray's processes, logs and dashboard call it."""
    if isinstance(work, type):
        return type(work.__name__, (_Actor,), {})

    def batched(batch: dict[str, Any], **how: Any) -> dict[str, Any]:
        return _task(batch, **how)

    batched.__name__ = batched.__qualname__ = work.__name__
    return batched
