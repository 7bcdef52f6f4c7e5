"""When a host may write to a log that others write to as well, so that none of them is kept out.

Who was first knows at once what the next number is, others have to read first: without a pause they would never come to
write, and who always wins never hears of them. A pause costs little: changes that come meanwhile go into one object.
"""

from __future__ import annotations

import time

_OTHERS_S = 60.0  # as long as a host that wrote is reckoned with
_RUN_S, _GAP_S = 0.5, 0.1  # a host that knows of no other writes that long without a pause, and pauses so long at least


class Turns:
    """Of one process. Told of all that it writes by one thread at a time, of what it hears by any."""

    def __init__(self) -> None:
        self._heard = -_OTHERS_S  # when another host's change was taken in last
        self._catching_up = 0.0  # seconds it took to come after another
        self._ran_from = self._ended = 0.0  # when the present run of writes began, and the last write ended
        self._after = 0.0  # when it may write again

    def wait(self) -> None:
        """Before a write."""
        time.sleep(max(0.0, self._after - time.monotonic()))
        if time.monotonic() - self._ended > _GAP_S:
            self._ran_from = time.monotonic()

    def heard(self) -> None:
        """A change of another host was taken in."""
        self._heard = time.monotonic()

    def lost(self, took: float) -> None:
        """Another was first. Args: took: seconds until this one knew all that the other wrote."""
        self._catching_up = took

    def won(self, took: float) -> None:
        """After a write. Args: took: the seconds of it."""
        self._ended = time.monotonic()
        pause = 2 * max(took, self._catching_up)
        if self._ended - self._heard >= _OTHERS_S:  # it knows of nobody: now and then is enough
            pause = max(pause, _GAP_S) if self._ended - self._ran_from > _RUN_S else 0.0
        self._after = self._ended + pause
