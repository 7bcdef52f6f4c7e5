"""Who does the parts: tasks of Ray, or actors that hold something dear. None is retried or restarted by Ray itself."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ray_jobs.runtime.parallel.inquest import Found, look
from ray_jobs.runtime.parallel.placement import Needs, can_grow, slots
from ray_jobs.runtime.parallel.sight import must_be_here
from ray_jobs.runtime.parallel.worker import Answer, Work, clocked, do_part, fetched, hide_gpus
from retrieval.artifacts.storage.patience import patience, patiently
from retrieval.images.native import BadImage

_LOOK_EVERY = 5.0  # seconds between two looks at how large the cluster is


class Crew(Protocol):
    """Starts parts where there is room for them. A reference that it gives comes to an `Answer`, or to None for a
    worker that is ready to be given parts."""

    def room(self, flying: int) -> bool: ...

    def start(self, part: int, without: Mapping[int, BadImage]) -> Any: ...

    def hire(self, left: int) -> list[Any]: ...

    def back(self, ref: Any, left: int) -> None: ...

    def lost(self, ref: Any) -> None: ...

    def close(self) -> None: ...


class Slots:
    """How many workers fit into the cluster as it is; it may grow and shrink meanwhile."""

    def __init__(self, needs: Needs) -> None:
        self._needs, self._num, self._looked = needs, 0, float("-inf")

    def __call__(self) -> int:
        if time.monotonic() - self._looked > _LOOK_EVERY:
            self._num, self._looked = max(1, slots(self._needs)), time.monotonic()
        return self._num


class Tasks:
    """A task a part. Twice as many as fit are handed to Ray: workers never wait, and an autoscaler sees the demand."""

    def __init__(self, work: Work, needs: Needs) -> None:
        import ray

        self._work, self._slots = ray.put(work), Slots(needs)
        self._task = ray.remote(_named_like(work.does, task)).options(max_retries=0, **needs.options())

    def room(self, flying: int) -> bool:
        return flying < 2 * self._slots() + 1

    def start(self, part: int, without: Mapping[int, BadImage]) -> Any:
        return self._task.remote(self._work, part, without)

    def hire(self, left: int) -> list[Any]:
        return []

    def back(self, ref: Any, left: int) -> None:
        pass

    def lost(self, ref: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Actors:
    """Actors that make the object of a class once and do one part after another, each one at a time.

    As many as fit into the cluster, or `most`; one more is asked for where all are at work, so that a cluster that can
    grow does. Those that have nothing left to do go, so that it can shrink.
    """

    def __init__(self, work: Work, needs: Needs, most: int) -> None:
        import ray

        self._work, self._slots, self._most = ray.put(work), Slots(needs), most
        self._class = ray.remote(_named_like(work.does, _Actor)).options(
            max_restarts=0, max_task_retries=0, **needs.options()
        )
        self._free: deque[Any] = deque()
        self._busy: dict[Any, Any] = {}  # by what they are at: getting ready, or a part

    def room(self, flying: int) -> bool:
        return bool(self._free)

    def start(self, part: int, without: Mapping[int, BadImage]) -> Any:
        actor = self._free.popleft()
        ref = actor.do.remote(part, without)
        self._busy[ref] = actor
        return ref

    def hire(self, left: int) -> list[Any]:
        """New actors, until there are as many as there is room for, or `left` parts to be done."""
        new, most = [], self._most or self._slots() + can_grow()
        while len(self._free) + len(self._busy) < min(left, most):
            actor = self._class.remote(self._work)
            ref = actor.make.remote()
            self._busy[ref] = actor
            new.append(ref)
        return new

    def back(self, ref: Any, left: int) -> None:
        actor = self._busy.pop(ref)
        if left:
            self._free.append(actor)
        else:
            _end(actor)

    def lost(self, ref: Any) -> None:
        _end(self._busy.pop(ref))

    def close(self) -> None:
        for actor in [*self._free, *self._busy.values()]:
            _end(actor)


def _end(actor: Any) -> None:
    import ray

    ray.kill(actor)


class _Actor:
    def __init__(self, work: Work) -> None:
        hide_gpus()
        self._work, self._made = work, None

    def make(self) -> Answer:
        """Not in the constructor, from which an error comes back as another one."""
        from ray_jobs.runtime.news.progress import told

        must_be_here(self._work.sees)
        with told(self._work.teller), clocked(self._work.limits), patience(self._work.patience):
            self._made = patiently(lambda: self._work.does(**fetched(self._work.fixed)), "getting a worker ready")
        return Answer()

    def do(self, part: int, without: Mapping[int, BadImage]) -> Answer:
        return do_part(self._work, part, without, self._made)


def task(work: Work, part: int, without: Mapping[int, BadImage]) -> Answer:
    """As Ray runs it."""
    hide_gpus()
    return do_part(work, part, without)


def inquest(work: Work, part: int, without: Mapping[int, BadImage], most: int) -> Found:
    """As Ray runs it: which photos of a part end their worker, beside those that are known."""
    hide_gpus()
    assert work.attempt is not None
    with clocked(work.limits), patience(work.patience):
        fixed = fetched(work.fixed) | {work.takes: part}
        return look(work.attempt, fixed, work.limits.photo_seconds, known=sorted(without), most=most)


def _named_like(does: Callable[..., Any] | type, done_by: Any) -> Any:
    """`done_by` under the name of the work, by which Ray's processes, logs and dashboard call it."""
    if isinstance(done_by, type):
        return type(does.__name__, (done_by,), {})

    def named(*args: Any) -> Any:
        return done_by(*args)

    named.__name__ = named.__qualname__ = does.__name__
    return named
