"""Work in numbered parts all over the cluster, through whatever ends a worker, and no longer than it is worth.

A part whose worker died is begun once more; a second time, the photo that did it is looked for (`inquest`) and the part
done without it. What is lost by that is counted and told. No part is begun for ever.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_jobs.runtime.command import of_the_user
from ray_jobs.runtime.news.progress import Step, mailbox_of_session, watch
from ray_jobs.runtime.parallel.limits import TRIES, Limits
from ray_jobs.runtime.parallel.placement import Needs, wait_for
from ray_jobs.runtime.parallel.worker import Answer, Work
from retrieval.artifacts.storage.failures import Outage
from retrieval.images.native import BadImage

logger = logging.getLogger(__name__)

_LIMITS = [Limits()]
_QUIET = 30.0  # seconds without news of any part, after which is looked whether there is a machine for them


@dataclass(slots=True)
class _Part:
    """One part on its way: how its workers ended since something was last learnt of it, and what it is done without."""

    number: int
    ends: list[str] = field(default_factory=list)
    without: dict[int, BadImage] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Flight:
    part: _Part | None
    """None: an actor that is getting ready."""
    since: float
    looks: bool = False
    """Photos are looked for, in place of doing the part."""
    fault: bool = False
    """That is so because the work failed, not because it ended its worker: it would fail again."""


def set_limits(limits: Limits) -> Limits:
    """From now on, for all parts of this process. Returns those that held before."""
    before, _LIMITS[0] = _LIMITS[0], limits
    return before


def limits() -> Limits:
    """Those that hold now."""
    return _LIMITS[0]


def run_parts(
    name: str,
    parts: Sequence[int],
    work: Callable[..., Any] | type,
    *,
    total_items: int = 0,
    fixed: Mapping[str, Any] | None = None,
    takes: str = "part",
    attempt: Callable[..., Any] | None = None,
    listed: object = "",
    needs: Needs | None = None,
    workers: int = 0,
) -> Iterator[dict[str, Any]]:
    """Do `work` once for each part number, all over the cluster; yield the small row it returns, as JSON has it.

    A part is done again if its worker dies, so `work` must write atomically under a name made from the part's number:
    bytes go worker -> storage, and only a row of counts comes back.

    Args:
        work: a function, called as work(part=n, **fixed); or a class, made once in each actor as work(**fixed), whose
            object is called with part=n. Returns a mapping or a dataclass. Of its photos, `taken` is counted, and
            `broken` how many of them cannot be read or end what reads them.
        total_items: photos in all parts together.
        fixed: the other arguments. An object reference among them arrives as what it refers to.
        takes: the name of the argument that is given the part's number.
        attempt: as `inquest.look` calls it, with `fixed` and the part's number too. Then `work` takes `without`, a
            mapping from the position of a photo in the part to why it is left out; else a part whose worker keeps
            dying ends the job.
        listed: where rejected photos are listed, for advice.
        needs: what each worker is given; None: one core.
        workers: actors, where `work` is a class; 0: as many as fit into the cluster.

    Raises: ValueError that `work` raised, something the user can mend, in one sentence; or if a part cannot be done, or
        too many photos are broken. Outage after storage, a disk or memory failed for longer than a job waits. Other
        errors with their stack.
    """
    if not parts:
        return
    from ray_jobs.runtime.parallel.crew import Actors, Tasks

    held = limits()
    needs = wait_for(needs or Needs(), name, held.wait_seconds)
    with watch(name, total_items or len(parts), in_parts=True, mailbox=mailbox_of_session(), workers=_cores()) as step:
        teller = step.teller if total_items else step.teller.of_lines()
        what = Work(does=work, fixed=dict(fixed or {}), takes=takes, attempt=attempt, teller=teller, limits=held)
        crew = Actors(what, needs, workers) if isinstance(work, type) else Tasks(what, needs)
        run = _Run(name, what, crew, needs, step, total_items, str(listed))
        try:
            yield from run.rows(parts)
        finally:
            crew.close()
        run.tell_losses()


class _Run:
    """All parts of one step."""

    def __init__(self, name: str, work: Work, crew: Any, needs: Needs, step: Step, total: int, listed: str) -> None:
        self._name, self._work, self._crew, self._needs = name, work, crew, needs
        self._step, self._total, self._listed = step, total, listed
        self._flying: dict[Any, _Flight] = {}
        self._waiting: deque[_Part] = deque()
        self._lost, self._blamed, self._broken, self._failed = 0.0, 0, 0, 0

    def rows(self, parts: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Of each part once, as they come."""
        import ray

        self._waiting.extend(_Part(number) for number in parts)
        heard = time.monotonic()
        while self._waiting or any(flight.part is not None for flight in self._flying.values()):
            self._start()
            ready, _ = ray.wait(list(self._flying), timeout=1.0)
            if not ready and time.monotonic() - heard > _QUIET:  # the last machine may be gone, and none come
                wait_for(self._needs, self._name, self._work.limits.wait_seconds)
            elif ready:
                heard = time.monotonic()
            for ref in ready:
                flight = self._flying.pop(ref)
                answer = self._answer(ref, flight)
                if isinstance(answer, Answer) and answer.row and flight.part is not None:
                    row = json.loads(answer.row)
                    self._step.finished(flight.part.number, row.get("taken", 0) if self._total else 1)
                    self._count(row)
                    yield row

    def _start(self) -> None:
        done_now = sum(flight.part is not None and not flight.looks for flight in self._flying.values())
        left = len(self._waiting) + done_now  # a part that is looked into waits for no worker yet
        for ref in self._crew.hire(left):
            self._flying[ref] = _Flight(None, time.monotonic())
        while self._waiting and self._crew.room(len(self._flying)):
            part = self._waiting.popleft()
            ref = self._crew.start(part.number, part.without)
            self._flying[ref] = _Flight(part, time.monotonic())

    def _answer(self, ref: Any, flight: _Flight) -> Answer | None:
        """What came of a flight; None if its worker died, or photos were looked for."""
        import ray
        from ray.exceptions import RayTaskError

        try:
            answer: Any = ray.get(ref)
        except deaths() as death:
            if not flight.looks:
                self._crew.lost(ref)
            self._died(flight, death)
            return None
        except RayTaskError as error:
            if of_the_user(error) and isinstance(error.cause, ValueError | Outage):
                raise error.cause from None
            raise
        if flight.looks:
            self._learnt(flight, answer)
            return None
        self._crew.back(ref, len(self._waiting))
        if answer.refused:
            raise ValueError(answer.refused)
        if answer.fault and flight.part is not None:
            self._lost += time.monotonic() - flight.since
            flight.part.ends.append(answer.fault)
            self._look_into(flight.part, fault=True)
        return answer

    def _died(self, flight: _Flight, death: Exception) -> None:
        self._lost += time.monotonic() - flight.since
        how, part = type(death).__name__, flight.part
        if part is None:  # while it got ready: no part is to blame
            self._failed += 1
            if self._failed >= TRIES:
                raise ValueError(
                    f"{self._name}: {self._failed} workers ended before they were ready ({how}: {_first(death)}). "
                    f"{ADVICE}"
                )
            return
        logger.debug("%s: part %d ended its worker: %s", self._name, part.number, death)
        part.ends.append(how)
        if len(part.ends) >= TRIES + 1 or (self._work.attempt is None and len(part.ends) >= TRIES):
            raise ValueError(
                f"{self._name}: part {part.number} ended its worker {len(part.ends)} times ({', '.join(part.ends)}) "
                f"and no photo of it does so alone. {ADVICE}"
            )
        if len(part.ends) == 1 or self._work.attempt is None or how == "OutOfMemoryError":
            logger.warning("%s: part %d ended its worker (%s); once more", self._name, part.number, how)
            self._waiting.appendleft(part)
        else:
            self._look_into(part)

    def _look_into(self, part: _Part, *, fault: bool = False) -> None:
        import ray

        from ray_jobs.runtime.parallel.crew import inquest

        what = "failed" if fault else "ended its worker"
        logger.warning("%s: part %d %s (%s); looking for the photo", self._name, part.number, what, part.ends[-1])
        most = self._work.limits.most_broken(self._total) - self._blamed + 1
        task = ray.remote(inquest).options(max_retries=0, **self._needs.options())
        ref = task.remote(self._work, part.number, part.without, most)
        self._flying[ref] = _Flight(part, time.monotonic(), looks=True, fault=fault)

    def _learnt(self, flight: _Flight, found: Any) -> None:
        part = flight.part
        assert part is not None
        self._lost += found.seconds
        for at, (image_id, reason, detail) in found.by.items():
            logger.warning("%s: %s is left out: %s (%s)", self._name, image_id, reason, detail)
            part.without[at] = BadImage(reason, detail)
            self._blamed += 1
        if found.by:
            part.ends.clear()
        elif len(part.ends) >= TRIES or flight.fault:
            raise ValueError(
                f"{self._name}: part {part.number} failed {len(part.ends)} times ({'; '.join(part.ends)}) and no photo "
                f"of it does so alone. {ADVICE}"
            )
        if self._blamed > self._work.limits.most_broken(self._total):
            self._too_many(self._blamed)
        self._waiting.appendleft(part)

    def _count(self, row: Mapping[str, Any]) -> None:
        self._broken += row.get("broken", 0)
        if self._broken > self._work.limits.most_broken(self._total):
            self._too_many(self._broken)

    def _too_many(self, broken: int) -> None:
        raise ValueError(
            f"{self._name}: {broken} of {self._total} photos cannot be read or end what reads them: more than "
            f"--max-rejected {self._work.limits.max_rejected:g}. They are listed with their reasons in "
            f"{self._listed or 'this log'}, as far as their parts are done. If the photos are as they should be, raise "
            f"--max-rejected, and the same command goes on from here; if not, mend them and name a new folder."
        )

    def tell_losses(self) -> None:
        """In the log, where anything was lost."""
        if self._lost:
            logger.warning(
                "%s: %d photos left out as crashed or timed-out; workers that ended cost at most %.0f s",
                self._name,
                self._blamed,
                self._lost,
            )


ADVICE = (
    "Lack of memory looks like this: give each worker more cores, so that fewer run at once, or use larger machines. "
    "The workers' own logs say more (logs/worker-* of Ray's session folder). The same command goes on from here."
)


def deaths() -> tuple[type[Exception], ...]:
    """What Ray raises where a worker ended over its work, for whatever reason."""
    from ray import exceptions

    return (
        exceptions.WorkerCrashedError,
        exceptions.RayActorError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else ""


def _cores() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 1))
