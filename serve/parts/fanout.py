"""All parts of an index, as a replica sees them: one shard that is asked as if it lay here, whole or not at all.

Every question names the index, goes to all parts at once, and has an answer when all have answered: the k best of each
part hold the k best of all. A part that does not answer within the deadline, has gone, or is still loading makes the
answer a `PartLost`, and so are all further ones, at once, until the part is heard of again: nobody waits for what is
known to be away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from retrieval.search.ranking import Neighbours, as_queries, merge_top_k
from serve.parts.messages import IndexName, PartLost, Told, Vectors

logger = logging.getLogger(__name__)

_STARTS_S = 120.0
"""So long a part is waited for that does not say anything when an index is opened: its process may be starting."""
_LOOK_S, _LOOK_AGAIN_S = 5.0, 0.5
"""How often parts are asked whether they still hold what is open, and how often while one does not."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A part that gave no answer. kind: lost, late, or without (it does not hold the index)."""

    kind: str
    why: str


class Handle(Protocol):
    """How a part is asked: a handle of Ray Serve, as far as it is used."""

    def options(self, *, method_name: str) -> Any: ...


class Parts:
    """All parts, from one replica. Safe to use from several threads, and not from an event loop: it waits."""

    def __init__(
        self, handles: Sequence[Handle], seconds: float, failed: Callable[[int, str], None] = lambda part, why: None
    ) -> None:
        """Args: handles: part by part. seconds: longest that an answer may take. failed: told of every question that a
        part failed: which, from 0, and lost, late or without (it does not hold the index)."""
        names = ("hold", "search", "vectors_of")
        # Made here: the first use of a handle is not safe in several threads.
        self._handles = [{name: handle.options(method_name=name) for name in names} for handle in handles]
        self.seconds, self.failed = seconds, failed
        self._lock = threading.Lock()
        self._open: list[SpreadShards] = []
        self._closed, self._woken = False, threading.Event()
        threading.Thread(target=self._keep_looking, name="parts", daemon=True).start()

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def num_away(self) -> int:
        """Parts that some index which is open is not answered by."""
        with self._lock:
            return len({number for one in self._open for number in one.away})

    def open(self, index: IndexName) -> SpreadShards:
        """An index, when all parts hold it, which takes as long as loading does.

        Raises: ValueError where a part refuses it; PartLost where one cannot be asked, or cannot read it just now.
        """
        opened = SpreadShards(self, index, self._wait_for(index))
        with self._lock:
            self._open.append(opened)
        return opened

    def close(self) -> None:
        """No index is open any more."""
        self._closed = True
        self._woken.set()

    def ask(self, method: str, *args: Any, seconds: float | None = None) -> list[Any]:
        """What each part answers: that, or a `Failure`, within the deadline."""
        seconds = self.seconds if seconds is None else seconds
        until = time.monotonic() + seconds
        asked = [_asked(handle[method], args) for handle in self._handles]
        return [one if isinstance(one, Failure) else _answer_of(one, until, seconds) for one in asked]

    def wake(self) -> None:
        """Look now, and often, whether all parts are there."""
        self._woken.set()

    def forget(self, one: SpreadShards) -> None:
        """Nobody asks it any more: the parts let it go when no replica has asked for a while."""
        with self._lock:
            self._open = [other for other in self._open if other is not one]

    def _wait_for(self, index: IndexName) -> list[Told]:
        while not self._closed:
            answers: list[Told | Failure] = self.ask("hold", index, seconds=_STARTS_S)
            for number, answer in enumerate(answers):
                if isinstance(answer, Failure) or answer.state == "failed":
                    raise PartLost(number, len(self), answer.why)
                if answer.state == "refused":
                    raise ValueError(f"Part {number + 1} of {len(self)} of the index refuses it: {answer.why}")
            held = [one for one in answers if isinstance(one, Told) and one.state == "held"]
            if len(held) == len(self):
                return held
            time.sleep(0.05)
        raise PartLost(0, len(self), "the service ends")

    def _keep_looking(self) -> None:
        while not self._closed:
            self._woken.wait(_LOOK_AGAIN_S if self.num_away else _LOOK_S)
            self._woken.clear()
            with self._lock:
                opened = list(self._open)
            for one in opened:
                one.look()


class SpreadShards:
    """One index, spread over the parts; `retrieval.search.index.Searchable`.

    away: why each part that is away is, by its number from 0.
    """

    def __init__(self, parts: Parts, index: IndexName, held: Sequence[Told]) -> None:
        self._parts, self._index = parts, index
        self._num, self.dim = sum(one.num for one in held), held[0].dim
        self._keeps_vectors = all(one.keeps_vectors for one in held)
        self.away: dict[int, str] = {}

    def __len__(self) -> int:
        return self._num

    @property
    def keeps_vectors(self) -> bool:
        return self._keeps_vectors

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Neighbours:
        """As `Shard.search`. Raises: PartLost."""
        bits = None if allowed is None else np.packbits(allowed)
        return merge_top_k(self._ask("search", as_queries(queries, self.dim), k, bits), k)

    def vectors_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Shard.vectors_of`. Raises: PartLost."""
        found: list[Vectors] = self._ask("vectors_of", rows)
        out = np.empty((len(rows), self.dim), np.float32)
        for one in found:
            out[one.mine] = one.vectors
        mine = np.logical_or.reduce([one.mine for one in found])
        return mine, out[mine]

    def look(self) -> None:
        """Ask all parts whether they still hold it, and hear of those that were away."""
        away = _failures(self._parts.ask("hold", self._index))
        for number in {*away} - {*self.away}:
            logger.error("part %d of the index is away: %s", number + 1, away[number].why)
        for number in {*self.away} - {*away}:
            logger.warning("part %d of the index answers again", number + 1)
        self.away = {number: failure.why for number, failure in away.items()}

    def close(self) -> None:
        """Nobody asks it any more."""
        self._parts.forget(self)

    def _ask(self, method: str, *args: Any) -> list[Any]:
        """The answers of all parts. Raises: PartLost if one of them is missing."""
        for number, why in self.away.items():
            raise PartLost(number, len(self._parts), why)
        answers = self._parts.ask(method, self._index, *args)
        for number, failure in _failures(answers).items():
            self._parts.failed(number, failure.kind)
            logger.error("part %d of the index is away: %s", number + 1, failure.why)
            self.away = {**self.away, number: failure.why}
            self._parts.wake()
        for number, why in self.away.items():
            raise PartLost(number, len(self._parts), why)
        return answers


def _asked(method: Any, args: Sequence[Any]) -> Any:
    """The answer to come, or why there is none."""
    try:
        return method.remote(*args)
    except Exception as error:  # noqa: BLE001 - as below
        return _lost(error)


def _answer_of(asked: Any, until: float, seconds: float) -> Any:
    try:
        return asked.result(timeout_s=max(0.0, until - time.monotonic()))
    except TimeoutError:
        asked.cancel()
        return Failure("late", f"it gave no answer within {seconds:g} s")
    except Exception as error:  # noqa: BLE001 - whatever Ray says of a process that is gone
        return _lost(error)


def _lost(error: Exception) -> Failure:
    return Failure("lost", f"it has gone ({type(error).__name__})")


def _failures(answers: Sequence[Any]) -> dict[int, Failure]:
    """By number of the part."""
    found = {number: one for number, one in enumerate(answers) if isinstance(one, Failure)}
    without = {number: one for number, one in enumerate(answers) if isinstance(one, Told) and one.state != "held"}
    return found | {number: Failure("without", one.why) for number, one in without.items()}
