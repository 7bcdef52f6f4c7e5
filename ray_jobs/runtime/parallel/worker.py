"""What a worker does: one part of the work, within its time, and an answer that is a row, a sentence or a fault."""

from __future__ import annotations

import dataclasses
import faulthandler
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray_jobs.runtime.command import of_the_user
from ray_jobs.runtime.news.progress import Teller, told
from ray_jobs.runtime.parallel.limits import Limits
from ray_jobs.runtime.parallel.sight import must_be_here, of_session
from retrieval.artifacts.storage.patience import current, patience, patiently
from retrieval.images import native
from retrieval.images.native import BadImage


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is done with each part; the same for all of them.

    does: a function, called as does(part=n, **fixed); or a class, made once a worker as does(**fixed), whose object is
        called with part=n. `takes` names the argument that is given the part's number.
    patience: seconds that a worker waits for storage; as long as whoever made this.
    sees: paths that its machine must see; those of the session.
    attempt: the same without a trace, for some photos of a part: see `inquest`. None: the part cannot be divided.
    """

    does: Callable[..., Any] | type
    fixed: Mapping[str, Any]
    takes: str = "part"
    attempt: Callable[..., Any] | None = None
    teller: Teller = dataclasses.field(default_factory=lambda: Teller(None))
    limits: Limits = dataclasses.field(default_factory=Limits)
    patience: float = dataclasses.field(default_factory=current)
    sees: tuple[str, ...] = dataclasses.field(default_factory=of_session)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One of: the row that the work returned, as JSON; what the user can mend, in a sentence; a fault in one line."""

    row: str = ""
    refused: str = ""
    fault: str = ""


def do_part(work: Work, part: int, without: Mapping[int, BadImage], made: Any = None) -> Answer:
    """Do a part, without some of its photos.

    Args: made: the object of the class that does it, where it is done by one.

    Raises: what nobody can mend, and no photo is to blame for: errors of storage, lack of memory, faults of work that
        cannot be divided.
    """
    does = work.does if made is None else made
    arguments: dict[str, Any] = {work.takes: part} | (fetched(work.fixed) if made is None else {})
    if takes_progress(does if made is None else type(made).__call__):
        arguments["progress"] = work.teller.of(part)
    if without:
        arguments["without"] = dict(without)
    try:
        must_be_here(work.sees)
        with told(work.teller, part=part), clocked(work.limits), patience(work.patience):
            done: Any = patiently(lambda: does(**arguments), f"part {part}")
    except (OSError, MemoryError):
        raise
    except Exception as error:
        mended = isinstance(error, ValueError) and of_the_user(error)
        if not mended and work.attempt is None:
            raise
        traceback.print_exc()  # whole in the worker's own log
        return Answer(refused=str(error)) if mended else Answer(fault=f"{type(error).__name__}: {error}")
    row = dataclasses.asdict(done) if dataclasses.is_dataclass(done) else done  # type: ignore[arg-type]
    return Answer(row=json.dumps(row))


@contextmanager
def clocked(limits: Limits) -> Iterator[None]:
    """End this process if a photo, or the block, takes too long. The latter leaves all stacks in the worker's log."""
    native.limit(limits.photo_seconds)
    faulthandler.dump_traceback_later(limits.part_seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        native.limit(0)


def hide_gpus() -> None:
    """Ray shows a node's GPUs to who asked for none too, and a library that sees one takes its memory."""
    import ray

    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def takes_progress(work: Callable[..., Any]) -> bool:
    return "progress" in inspect.signature(work).parameters


def fetched(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What all parts share stays in the cluster's memory, once a node, where workers read it without a copy."""
    import ray

    return {name: ray.get(value) if isinstance(value, ray.ObjectRef) else value for name, value in fixed.items()}
