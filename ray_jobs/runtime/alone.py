"""A job as the only writer of the folder that it makes, heard of while it writes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from ray_jobs.runtime.news.pulse import beating
from ray_jobs.runtime.places import must_answer
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, STARTED
from retrieval.artifacts.storage.patience import current, patience
from retrieval.artifacts.writing.owner import forget_the_dead, sole_writer

Main = TypeVar("Main", bound=Callable[..., Any])


@contextmanager
def at_work_on(folder: Folder, what: str) -> Iterator[None]:
    """Write `folder` alone for the length of the block, and be heard of. In it again, it does nothing.

    Whoever is refused is not heard of: the sign of life is that of the job at work there.

    Raises: ValueError if another job is at work there, or nothing can be written there.
    """
    with sole_writer(folder, what), beating(folder, what):
        yield


def alone(main: Main) -> Main:
    """A job's `main`, which writes `cfg.out` alone for as long as it lasts. A folder that is sealed is only read.

    Raises, beside what `main` does: ValueError if another job is at work there, or nothing can be written there; Outage
    if a store does not answer, at once unless a job waits for it already.
    """

    @functools.wraps(main)
    def only_one(cfg: Any, *args: Any, **kwargs: Any) -> Any:
        out = Folder.of(cfg.out)
        if not current():  # no step of a pipeline that is at work
            must_answer(out)
        with contextlib.ExitStack() as stack:
            with patience(current() or None):
                # With both, whoever sealed it died before the last of it.
                if not out.exists(MANIFEST) or out.exists(STARTED):
                    stack.enter_context(at_work_on(out, main.__module__.rpartition(".")[2]))
                else:
                    forget_the_dead(out)
            return main(cfg, *args, **kwargs)

    return cast(Main, only_one)
