"""A counted failpoint in the seam that writes files: the process ends, or an error is returned, at the N-th moment.

Each file passes three moments: `begun` (half of its first bytes are on their way), `whole` (complete, and not visible
yet) and `published` (visible; nobody has been told). They are counted where the writes happen:

    RETRIEVAL_FAIL_AT_WRITE=7:exit     the process that reaches its 7th moment ends there, as by kill -9
    RETRIEVAL_FAIL_AT_WRITE=7:error    that moment raises an OSError instead
    RETRIEVAL_FAIL_AT_WRITE=FOLDER     the file FOLDER/plan says `7:exit`, `7:error` or `count`; all processes of this
                                       host count together, and each moment is a line of FOLDER/reached

Nothing but the environment switches it on: no setting, no file of a workspace and no request does.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

VARIABLE = "RETRIEVAL_FAIL_AT_WRITE"

EXIT_CODE = 70
"""How a process ends that came to its moment."""

COUNT = "count"

_PLAN, _REACHED = "plan", "reached"
_own = 0


def is_on() -> bool:
    """Whether moments are counted at all."""
    return bool(os.environ.get(VARIABLE))


def reach(moment: str, path: str) -> None:
    """Count one moment of writing `path`, and fail if it is the one.

    Raises: OSError if the plan says `error`; ValueError for a plan that cannot be read.
    """
    said = os.environ.get(VARIABLE)
    if not said:
        return
    if os.sep in said:
        plan = (Path(said) / _PLAN).read_text().strip()
        number = _count_together(Path(said) / _REACHED, f"{moment} {path}")
    else:
        plan, number = said, _count_alone()
    at, how = _parsed(plan)
    if number != at:
        return
    if how == "exit":
        os._exit(EXIT_CODE)
    raise OSError(errno.EIO, f"failpoint: error at moment {number} ({moment})", path)


def reached(folder: Path) -> list[tuple[str, str]]:
    """(moment, path) of each that was counted in a folder."""
    file = folder / _REACHED
    lines = file.read_text().splitlines() if file.exists() else []
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def arm(folder: Path, plan: str) -> None:
    """Begin to count in a folder anew, under another plan."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _REACHED).unlink(missing_ok=True)
    (folder / _PLAN).write_text(plan)


def _parsed(plan: str) -> tuple[int, str]:
    """The number to fail at, 0 for none, and how."""
    if plan == COUNT:
        return 0, COUNT
    number, _, how = plan.partition(":")
    if not number.isdigit() or how not in ("exit", "error"):
        raise ValueError(f"{VARIABLE} is {plan!r}, expected for example 7:exit, 7:error or {COUNT}.")
    return int(number), how


def _count_alone() -> int:
    global _own
    _own += 1
    return _own


def _count_together(file: Path, line: str) -> int:
    with file.open("a+") as counted:
        fcntl.flock(counted, fcntl.LOCK_EX)
        counted.seek(0)
        number = 1 + sum(1 for _ in counted)
        counted.write(f"{line}\n")
        counted.flush()
    return number
