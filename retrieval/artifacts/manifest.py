"""What lies on storage between two steps: folders, Parquet parts, books, and the manifest that seals them.

A step's life is three calls::

    done = begin(folder, kind="embeddings", config=cfg, inputs={"model": fp, "collection": fp})
    if done is None:
        ...  # write parts, each under its final name only when complete
        done = seal(folder, kind="embeddings", config=cfg, inputs=..., counts=..., books=[...], files=...)

`begin` returns the manifest when the very same work is already sealed, resumes when it was started and not
finished, and refuses when the folder belongs to other work. A folder without `manifest.json` is unfinished.

Folders are named by URI, anything `pyarrow.fs` opens: a local path, `s3://bucket/...`, `gs://bucket/...`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.metadata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, hash_file, plain

MANIFEST = "manifest.json"

STARTED = "started.json"

_VERSIONS_OF = ("torch", "torchvision", "numpy", "pyarrow", "opencv-python-headless", "faiss-gpu", "faiss-cpu", "ray")


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """One stage's account: every item taken in was kept or rejected, with a reason.

    Raises: ValueError when `taken != kept + sum(rejected)`.
    """

    stage: str
    taken: int
    kept: int
    rejected: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        out = self.kept + sum(self.rejected.values())
        if out != self.taken:
            raise ValueError(
                f"The books of stage '{self.stage}' do not balance: {self.taken} in, {self.kept} kept + "
                f"{dict(self.rejected)} rejected = {out}. Nothing was sealed; run the step again to redo the rest."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The seal of a finished folder. `fingerprint` names its content: kind, config, inputs, counts, books, file hashes.

    The same work done twice has the same fingerprint, so what differs from one time to the next is outside of it:
    `run`, how it was made (seconds, workers, parts that were there already), and `aside`, files that only show or tell
    (pictures, timings), hashed one by one all the same.
    """

    kind: str
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, Any]
    books: list[dict[str, Any]]
    files: dict[str, str]  # relative name -> sha256 hex
    versions: dict[str, str]
    created: str
    fingerprint: str
    run: dict[str, Any] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)  # as files

    @property
    def all_files(self) -> dict[str, str]:
        """Every file of the folder with its hash, the fingerprint's and those aside: what a copy must hold, unhurt."""
        return self.files | self.aside


def begin(
    folder: Folder, *, kind: str, config: Any, inputs: Mapping[str, str], ignore: Sequence[str] = ()
) -> Manifest | None:
    """Claim `folder` for this work, or find it done.

    Args:
        config: dataclass or dict; decides what the output is. Names in `ignore` (worker counts, batch sizes for
            speed, places) do not change the output and are not compared.
        inputs: name -> fingerprint of each input artefact.

    Returns: the manifest if the same work is sealed here; None if there is work to do (new, or begun and not finished).

    Raises: ValueError if the folder holds other work, naming every setting that differs.
    """
    wanted = {"kind": kind, "config": _without(plain(config), ignore), "inputs": dict(inputs)}
    if folder.exists(MANIFEST):
        manifest = read_manifest(folder)
        found = {"kind": manifest.kind, "config": _without(manifest.config, ignore), "inputs": manifest.inputs}
        _refuse_other(folder, found, wanted)
        if folder.exists(STARTED):  # whoever sealed it died before the last of it
            _tidy(folder)
        return manifest
    if folder.exists(STARTED):
        found = folder.read_json(STARTED)
        _refuse_other(folder, {**found, "config": _without(found["config"], ignore)}, wanted)
    elif folder.list():
        raise ValueError(
            f"{folder} holds files but was not begun by this project. Name an empty or new folder, or remove it."
        )
    else:
        folder.write_json(STARTED, wanted)
    return None


def held_so_far(folder: Folder, what: str, now: bool) -> bool:
    """Whether something holds now, and held whenever this work was begun before: kept from `begin` to `seal`.

    So that who goes on with work that others began, perhaps on other machines, decides as they did.
    """
    started = folder.read_json(STARTED)
    holds = now and started.get(what, True)
    if started.get(what) != holds:
        folder.write_json(STARTED, {**started, what: holds})
    return holds


def seal(
    folder: Folder,
    *,
    kind: str,
    config: Any,
    inputs: Mapping[str, str],
    counts: Mapping[str, Any],
    books: Iterable[Books] = (),
    files: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    run: Mapping[str, Any] | None = None,
    aside: Sequence[str] = (),
) -> Manifest:
    """Write the manifest, last.

    Args:
        config, inputs, ignore: as `begin`. counts: what is in the folder, in numbers that come out the same each time.
        files: relative name -> sha256, found by the workers; None hashes all here.
        run: how it was made, kept outside the fingerprint.
        aside: names, or patterns such as `*.png` (`*` matches `/` too), of files outside the fingerprint; those that
            `files` does not hold are hashed here.

    Raises: ValueError if files and hashes differ.
    """
    names = [name for name in folder.list() if name not in (MANIFEST, STARTED)]
    apart = {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in aside)}
    hashes = dict(files or {})
    ours = set(names) if files is None else apart - set(hashes)
    hashes |= {name: hash_of(folder, name) for name in sorted(ours)}
    if missing := sorted(set(hashes) ^ set(names)):
        raise ValueError(f"Cannot seal {folder}: files and hashes differ for {missing[:5]}. Run the step again.")
    body = {
        "kind": kind,
        "config": _without(plain(config), ignore),
        "inputs": dict(inputs),
        "counts": plain(dict(counts)),
        "books": [plain(book) for book in books],
        "files": {name: hashes[name] for name in sorted(hashes) if name not in apart},
    }
    manifest = Manifest(
        **body,
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=digest(body),
        run=plain(dict(run or {})),
        aside={name: hashes[name] for name in sorted(apart)},
    )
    folder.write_json(MANIFEST, dataclasses.asdict(manifest))
    _tidy(folder)
    return manifest


def _tidy(folder: Folder) -> None:
    """Take away what told of a folder's being made; last what tells that there is something to take away."""
    folder.remove_marks()
    folder.remove(STARTED)


def hash_of(folder: Folder, name: str) -> str:
    """sha256 hex of a file: what its marker says, else the file is read."""
    done = folder.done(name)
    return hash_file(folder, name) if done is None else done.sha256


def read_manifest(folder: Folder, kind: str | None = None) -> Manifest:
    """The manifest of a sealed folder.

    Raises: ValueError if there is none (the step did not finish) or it is of another kind.
    """
    if not folder.exists(MANIFEST):
        state = "was started and not finished: run its step again" if folder.exists(STARTED) else "does not exist"
        raise ValueError(f"No sealed {kind or 'artefact'} at {folder}: it {state}.")
    manifest = Manifest(**folder.read_json(MANIFEST))
    if kind is not None and manifest.kind != kind:
        raise ValueError(f"{folder} holds a '{manifest.kind}', expected a '{kind}'. Check the path.")
    return manifest


def check_made_from(name: object, manifest: Manifest, of: str, wanted: str) -> None:
    """Args: name: what the sealed folder is called to the user. of: one of its inputs. wanted: that one's fingerprint.

    Raises: ValueError if it was made with another, or with none.
    """
    made = manifest.inputs.get(of)
    if made != wanted:
        were, them = ("were", "them") if manifest.kind.endswith("s") else ("was", "it")
        raise ValueError(
            f"The {manifest.kind} {name} {were} made with {of} {str(made)[:12]}, not with the one given, "
            f"{wanted[:12]}. Name folders that were made from each other, or make {them} again."
        )


def check_files(folder: Folder, sealed: Mapping[str, str], hashed: Collection[str] | None = None) -> None:
    """Files that were sealed are there, and are what they were.

    Args: sealed: name -> sha256 of files that must be there. hashed: those that are compared with it; None: all.

    Raises: ValueError.
    """
    there = folder.list()
    if missing := [name for name in sealed if name not in there]:
        raise ValueError(
            f"{folder} lacks {missing[0]}, which was sealed there ({len(missing)} of {len(sealed)} files)."
        )
    for name in sealed if hashed is None else [name for name in sealed if name in hashed]:
        if hash_file(folder, name) != sealed[name]:
            raise ValueError(f"{folder}/{name} is not the file that was sealed: it was changed or damaged.")


def versions() -> dict[str, str]:
    """Installed versions of the libraries that shape the output."""
    found = {}
    for name in _VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _without(config: dict[str, Any], ignore: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in ignore}


def _refuse_other(folder: Folder, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    different = []
    if found["kind"] != wanted["kind"]:
        different.append(f"kind: {found['kind']} there, {wanted['kind']} wanted")
    for group in ("config", "inputs"):
        there, here = found[group], wanted[group]
        different += [
            f"{group}.{name}: {there.get(name)!r} there, {here.get(name)!r} wanted"
            for name in sorted(set(there) | set(here))
            if there.get(name) != here.get(name)
        ]
    if different:
        raise ValueError(
            f"{folder} was made with other settings or inputs ({'; '.join(different)}). "
            f"Give another output folder, or remove this one to redo it."
        )
