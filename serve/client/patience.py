"""When a request is sent again: the service was full, or the connection failed, and there is time left."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from serve.client.failures import retry_after_of

_FULL = (429, 503)
_FIRST_S, _LONGEST_S = 0.2, 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """retries: times that a request is sent again, at most. longest_s: waited in all, at most: who is told to wait
    longer gives up at once."""

    retries: int = 3
    longest_s: float = 30.0

    def __post_init__(self) -> None:
        if self.retries < 0 or not self.longest_s >= 0:
            raise ValueError(f"retries is {self.retries} and longest_s {self.longest_s}; expected 0 or more of both.")


class Waits:
    """The waits of one request."""

    def __init__(self, patience: Patience, again: bool, random_number: Callable[[], float] = random.random) -> None:
        """Args: again: whether it may be sent a second time although it may have been done the first time."""
        self._patience, self._again, self._random = patience, again, random_number
        self._num, self._waited = 0, 0.0

    def after(self, response: httpx.Response) -> float | None:
        """Seconds to wait before it is sent again; None: this is the answer."""
        return self._next(retry_after_of(response)) if response.status_code in _FULL else None

    def after_failure(self, error: httpx.TransportError) -> float | None:
        """The same where nothing came back. What was never sent is safe to send."""
        safe = self._again or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        return self._next(None) if safe else None

    def _next(self, told: float | None) -> float | None:
        # Where nobody says, each wait doubles, and differs between clients: or all would come back at once.
        guess = min(_LONGEST_S, _FIRST_S * 2**self._num) * (0.5 + self._random())
        wait = guess if told is None else told
        if self._num >= self._patience.retries or self._waited + wait > self._patience.longest_s:
            return None
        self._num += 1
        self._waited += wait
        return wait
