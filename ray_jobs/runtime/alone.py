"""A job as the only writer of the folder that it makes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, STARTED
from retrieval.artifacts.writing.owner import sole_writer

C = TypeVar("C")
P = ParamSpec("P")
T = TypeVar("T")


def alone(main: Callable[Concatenate[C, P], T]) -> Callable[Concatenate[C, P], T]:
    """A job's `main`, which writes `cfg.out` alone for as long as it lasts. A folder that is sealed is only read.

    Raises, beside what `main` does: ValueError if another job is at work there, or nothing can be written there.
    """

    @functools.wraps(main)
    def only_one(cfg: C, *args: P.args, **kwargs: P.kwargs) -> T:
        settings: Any = cfg
        out = Folder.of(settings.out)
        if out.exists(MANIFEST) and not out.exists(STARTED):  # with both, whoever sealed it died before the last of it
            return main(cfg, *args, **kwargs)
        with sole_writer(out, main.__module__.rpartition(".")[2]):
            return main(cfg, *args, **kwargs)

    return only_one
