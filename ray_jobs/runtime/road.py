"""The road of a pipeline: its steps in turn, each in a folder named after what decides its result.

    road = Road(workspace, steps=2)
    embeddings = road.do(embed, collection=collection, model=bundle, device="cuda")
    index = road.do(build_index, collection=collection, embeddings=embeddings, splits=("gallery",))

A step's folder is W/<kind>/<key>: the key stands for the settings that decide and for the content of the folders among
them, not for their places. A step that lies there sealed is not done again; one that was interrupted goes on.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ray_jobs.runtime.alone import at_work_on
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, plain
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.artifacts.writing.owner import forget_the_dead

logger = logging.getLogger(__name__)

_KEY_LENGTH = 10


class Job(Protocol):
    """A job's module, as the road sees it."""

    @property
    def __name__(self) -> str: ...

    @property
    def KIND(self) -> str:
        """What its manifest says it makes, and the folder of the workspace that its results lie in."""
        ...

    @property
    def CONFIG(self) -> type[Any]:
        """Its settings, a dataclass with a field `out`."""
        ...

    @property
    def SPEED(self) -> tuple[str, ...]:
        """Settings that say how fast, and not what: they are no part of the key."""
        ...

    def main(self, cfg: Any) -> Any:
        """Makes the folder `cfg.out` and seals it."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """A setting that names what no manifest seals, a source or a file of weights, and what its content is known by."""

    name: str
    content: str


class Road:
    """The steps of one run, counted and said as they begin."""

    def __init__(self, workspace: Folder, steps: int) -> None:
        self._workspace, self._steps = workspace, steps
        self._done: set[Folder] = set()
        self._passed = 0

    def do(self, job: Job, say: str = "", beside: Mapping[str, Any] | None = None, **settings: Any) -> Folder:
        """Run a job on these settings, unless its result lies there sealed. Returns the folder of its result.

        Args:
            say: what the log calls the step; the job's name if it is not given.
            beside: what the job's `main` takes beside its config.
            settings: fields of its config, without `out`. A `Folder` is one that an earlier step sealed.

        Raises: ValueError for a folder that is not sealed, or settings that the job refuses.
        """
        cfg = job.CONFIG(**{name: _as_field(value) for name, value in settings.items()}, out="")
        decides = {
            field.name: content_of(settings.get(field.name, getattr(cfg, field.name)))
            for field in dataclasses.fields(cfg)
            if field.name not in job.SPEED and field.name != "out"
        }
        return self.make(
            job.KIND,
            say or job.__name__.rpartition(".")[2],
            lambda out: job.main(dataclasses.replace(cfg, out=out.uri), **(beside or {})),
            **decides,
        )

    def make(self, kind: str, say: str, work: Callable[[Folder], Any], **decides: Any) -> Folder:
        """As `do`, for a step that is no job: `work` makes and seals the folder it is given, a `kind`."""
        out = self._workspace / kind / digest(content_of(decides))[:_KEY_LENGTH]
        if out in self._done:  # two places of the road that ask for the same
            return out
        self._done.add(out)
        there = out.exists(MANIFEST)
        self._say(f"{say}: there already, {out}" if there else say)
        if there:
            forget_the_dead(out)
        else:
            with at_work_on(out, say):
                work(out)
        return out

    def pass_by(self, why: str) -> None:
        """A step that these photos leave nothing to do for. It is counted, and the reason said."""
        self._passed += 1
        self._say(why)

    def _say(self, what: str) -> None:
        logger.info("[%d/%d] %s", len(self._done) + self._passed, self._steps, what)


def content_of(value: Any) -> Any:
    """A setting as plain values that do not change with the place it lies at: folders become their fingerprints.

    Raises: ValueError for a folder that is not sealed.
    """
    if isinstance(value, Folder):
        return read_manifest(value).fingerprint
    if isinstance(value, Known):
        return value.content
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: content_of(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): content_of(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [content_of(one) for one in value]
    return plain({"": value})[""]


def _as_field(value: Any) -> Any:
    if isinstance(value, Folder):
        return value.uri
    return value.name if isinstance(value, Known) else value
