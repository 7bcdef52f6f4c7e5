"""A job as the only writer of the folder that it makes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, STARTED
from retrieval.artifacts.writing.owner import sole_writer

Main = TypeVar("Main", bound=Callable[..., Any])


def alone(main: Main) -> Main:
    """A job's `main`, which writes `cfg.out` alone for as long as it lasts. A folder that is sealed is only read.

    Raises, beside what `main` does: ValueError if another job is at work there, or nothing can be written there.
    """

    @functools.wraps(main)
    def only_one(cfg: Any, *args: Any, **kwargs: Any) -> Any:
        out = Folder.of(cfg.out)
        if out.exists(MANIFEST) and not out.exists(STARTED):  # with both, whoever sealed it died before the last of it
            return main(cfg, *args, **kwargs)
        with sole_writer(out, main.__module__.rpartition(".")[2]):
            return main(cfg, *args, **kwargs)

    return cast(Main, only_one)
