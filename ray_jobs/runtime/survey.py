"""What lies in a workspace: each step's folder and the state it is in, what was left out and why, what is served.

One listing of the workspace, and one small file read a folder: nothing is opened that grows with the photos.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ray_jobs.runtime.news.pulse import PULSES, Pulse, read_pulse
from ray_jobs.runtime.tracking.outbox import OUTBOX
from retrieval.artifacts import published
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, STARTED, Manifest, read_manifest

State = Literal["running", "failed", "stopped", "stale", "damaged", "sealed"]
"""Of a step's folder. failed, stopped: its job said so as it ended. stale: begun, and nobody is known to work on it.
damaged: its manifest cannot be read."""

_READERS = 16  # an object store answers one question in tens of milliseconds, and many at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One step's folder."""

    name: str
    """Below the workspace."""
    kind: str
    """What it holds or is to hold; empty where its job has not begun it yet."""
    state: State
    files: int = 0
    bytes: int = 0
    sealed_at: str = ""
    taken: int | None = None
    """Items that went in, by the first of its books; None where it keeps none, or is not sealed."""
    kept: int | None = None
    """Items that came out, by the last of its books."""
    rejected: dict[str, int] = field(default_factory=dict)
    """How many were left out, by reason, all its books together."""
    served: bool = False
    """Whether the version that is served answers from it."""
    pulse: Pulse | None = None
    why: str = ""
    """Of what failed, was stopped, is stale or damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One that the workspace remembers as published."""

    name: str
    at: str
    served: bool
    missing: list[str]
    """Kinds of its folders that are no longer there as they were published: it cannot be gone back to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """A workspace at one moment."""

    workspace: str
    at: str
    work: list[Work]
    versions: list[Version]
    """The oldest first."""
    files: int
    """Of the whole workspace; so are `bytes`."""
    bytes: int
    other: dict[str, int]
    """Bytes that belong to no step's folder, by the first part of their name."""
    untold: int = 0
    """Notes that wait for MLflow."""

    @property
    def counts(self) -> dict[str, int]:
        """How many folders are in each state."""
        return dict(Counter(one.state for one in self.work))


def survey(workspace: Folder, now: datetime | None = None) -> Survey:
    """Look at a workspace. Args: now: by which pulses are old.

    Raises: ValueError if there is nothing, or CURRENT.json cannot be read.
    """
    now = now or datetime.now(UTC)
    sizes = workspace.list()
    if not sizes:
        raise ValueError(f"There is nothing at {workspace}. Name the folder or URI that was given as --workspace.")
    inside, other = _sorted_by_folder(sizes)
    current, kept = published.history(workspace) if published.is_published(workspace) else (None, [])
    served = set(current.paths.values()) if current is not None else set()
    with ThreadPoolExecutor(_READERS) as pool:
        manifests = dict(zip(inside, pool.map(lambda name: _seal_of(workspace, name, inside[name]), inside)))
        pulses = dict(zip(inside, pool.map(lambda name: read_pulse(workspace / name), inside)))
        kinds = dict(zip(inside, pool.map(lambda name: _begun_as(workspace, name, inside[name]), inside)))
    work = [
        _work(name, inside[name], manifests[name], kinds[name], pulses[name], name in served, now) for name in inside
    ]
    return Survey(
        workspace=str(workspace),
        at=now.isoformat(timespec="seconds"),
        work=sorted(work, key=lambda one: one.name),
        versions=[_version(one, current, manifests) for one in kept],
        files=len(sizes),
        bytes=sum(sizes.values()),
        other=other,
        untold=sum(name.rpartition("/")[0] == OUTBOX for name in sizes),
    )


def _sorted_by_folder(sizes: Mapping[str, int]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Args: sizes: bytes of every file by its name.

    Returns: the files of each step's folder, by its name; and the bytes of what belongs to none.
    """
    inside: dict[str, dict[str, int]] = {}
    for name in sizes:
        above, _, last = name.rpartition("/")
        if above and last in (MANIFEST, STARTED):
            inside.setdefault(above, {})
        elif above.rpartition("/")[2] == PULSES:
            root = above.removesuffix(PULSES)
            inside.setdefault(f"{root}{last.removesuffix('.json')}", {})
    other: dict[str, int] = defaultdict(int)
    for name, size in sizes.items():
        owner = _owner(name, inside)
        if owner is not None:
            inside[owner][name.removeprefix(f"{owner}/")] = size
        else:
            other[name.partition("/")[0]] += size
    return inside, dict(other)


def _owner(name: str, inside: Mapping[str, Any]) -> str | None:
    """The innermost of the steps' folders that a file lies in."""
    above = name.rpartition("/")[0]
    while above:
        if above in inside:
            return above
        above = above.rpartition("/")[0]
    return None


def _seal_of(workspace: Folder, name: str, files: Mapping[str, int]) -> Manifest | str | None:
    """The manifest, what is wrong with it, or None where there is none."""
    if MANIFEST not in files:
        return None
    try:
        return read_manifest(workspace / name)
    except (ValueError, TypeError, OSError) as error:
        return f"its {MANIFEST} cannot be read ({error}): remove the folder, and run its step again"


def _begun_as(workspace: Folder, name: str, files: Mapping[str, int]) -> str:
    if STARTED not in files:
        return ""
    try:
        return str((workspace / name).read_json(STARTED).get("kind", ""))
    except (ValueError, AttributeError, OSError):  # it was sealed a moment ago, or is damaged: nothing rests on it
        return ""


def _work(
    name: str,
    files: Mapping[str, int],
    seal: Manifest | str | None,
    begun_as: str,
    pulse: Pulse | None,
    served: bool,
    now: datetime,
) -> Work:
    size: dict[str, Any] = {"name": name, "files": len(files), "bytes": sum(files.values()), "served": served}
    if isinstance(seal, Manifest):
        books: dict[str, Any] = {}
        if seal.books:
            rejected = sum((Counter(book["rejected"]) for book in seal.books), Counter[str]())
            books = {"taken": seal.books[0]["taken"], "kept": seal.books[-1]["kept"], "rejected": dict(rejected)}
        return Work(kind=seal.kind, state="sealed", sealed_at=seal.created, **books, **size)
    if seal is not None:
        return Work(kind=begun_as, state="damaged", why=seal, **size)
    state, why = _unfinished(pulse, now)
    return Work(kind=begun_as, state=state, why=why, pulse=pulse, **size)


def _unfinished(pulse: Pulse | None, now: datetime) -> tuple[State, str]:
    if pulse is None:
        return "stale", "it was begun, and nobody says to work on it"
    if pulse.is_lost(now):
        return "stale", f"{pulse.job} on {pulse.node} was last heard of {pulse.silent_for(now):.0f} s ago"
    return pulse.state, pulse.why


def _version(
    one: published.Published, current: published.Published | None, manifests: Mapping[str, Manifest | str | None]
) -> Version:
    """A folder that lies elsewhere is not looked at, and counts as there."""
    missing = []
    for kind, path in one.paths.items():
        seal = manifests.get(path)
        outside = "://" in path or path.startswith("/")
        if not outside and not (isinstance(seal, Manifest) and seal.fingerprint == one.fingerprints[kind]):
            missing.append(kind)
    served = current is not None and one.version == current.version
    return Version(name=one.version, at=one.at, served=served, missing=missing)
