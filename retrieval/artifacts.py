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
import functools
import hashlib
import importlib.metadata
import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

MANIFEST = "manifest.json"
STARTED = "started.json"
_VERSIONS_OF = ("torch", "torchvision", "numpy", "pyarrow", "opencv-python-headless", "faiss-gpu", "faiss-cpu", "ray")

IMAGE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # stable, relative POSIX path
        ("jpeg", pa.binary()),  # bytes as stored after crop and resize
        ("width", pa.int32()),  # of the stored JPEG, pixels
        ("height", pa.int32()),
        ("box", pa.list_(pa.float32(), 4)),  # x1, y1, x2, y2 in the upright source photo, pixels; may reach outside it
        ("label", pa.string()),  # identity or cluster, nullable
        ("split", pa.string()),  # the source's own partition, nullable
        ("attributes", pa.list_(pa.int8())),  # -1/1 each (CelebA: 40), or null
        ("content_hash", pa.string()),  # sha256 hex of the source bytes
    ]
)
REJECTED_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
CATALOG_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),  # ours: train, val, query, gallery or dropped
        ("reason", pa.string()),  # why dropped, else null
        ("duplicate_of", pa.string()),  # first image_id with the same content_hash, else null
        ("attributes", pa.list_(pa.int8())),
        ("part", pa.int32()),  # images/part-<part>.parquet ...
        ("row", pa.int32()),  # ... and the row in it
    ]
)
EMBEDDING_SCHEMA = pa.schema([("image_id", pa.string()), ("embedding", pa.list_(pa.float32()))])


def part_name(part: int) -> str:
    """File name of part number `part`: part-00007.parquet."""
    return f"part-{part:05d}.parquet"


@functools.lru_cache(maxsize=32)
def _open(uri: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in uri:
        return pafs.LocalFileSystem(), str(Path(uri).absolute())
    return pafs.FileSystem.from_uri(uri)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on local disk or in an object store. Cheap to make and to send: it holds only its URI."""

    uri: str

    @classmethod
    def of(cls, where: str | Path | Folder) -> Folder:
        """Local paths become absolute, since Ray's workers run in another folder."""
        if isinstance(where, Folder):
            return where
        uri = str(where).rstrip("/") or "/"
        return cls(uri if "://" in uri else str(Path(uri).expanduser().absolute()))

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, pafs.LocalFileSystem)

    @property
    def fs(self) -> pafs.FileSystem:
        return _open(self.uri)[0]

    @property
    def path(self) -> str:
        """The folder's path inside `fs`."""
        return _open(self.uri)[1]

    def file(self, name: str) -> str:
        """Path inside `fs` of the file `name` of this folder."""
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        return self.fs.get_file_info(self.file(name)).type == pafs.FileType.File

    def list(self) -> dict[str, int]:
        """Relative names of all finished files below this folder, with their sizes in bytes, sorted by name."""
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        found = {}
        for info in self.fs.get_file_info(selector):
            name = info.path[len(self.path) :].lstrip("/")
            if info.type == pafs.FileType.File and ".tmp-" not in name:
                found[name] = info.size
        return dict(sorted(found.items()))

    def read_bytes(self, name: str) -> bytes:
        with self.fs.open_input_file(self.file(name)) as stream:
            return stream.read()

    def write_bytes(self, name: str, data: bytes) -> None:
        """Atomic: a reader sees the old file or the whole new one, never a half."""
        with _atomic(self, name) as path, self.fs.open_output_stream(path) as stream:
            stream.write(data)

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self.file(name), columns=columns, filesystem=self.fs)

    def write_table(self, name: str, table: pa.Table, **options: Any) -> None:
        """Atomic, as `write_bytes`."""
        with _atomic(self, name) as path:
            pq.write_table(table, path, filesystem=self.fs, **options)

    def remove(self, name: str) -> None:
        if self.exists(name):
            self.fs.delete_file(self.file(name))


class _atomic:
    """Temp name, then rename, on a local disk. Object stores already publish an object only when it is complete."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._fs, self._final = folder.fs, folder.file(name)
        self._rename = folder.is_local
        self._temp = f"{self._final}.tmp-{uuid.uuid4().hex[:8]}" if self._rename else self._final

    def __enter__(self) -> str:
        if self._rename:
            os.makedirs(os.path.dirname(self._temp), exist_ok=True)
        return self._temp

    def __exit__(self, kind: Any, *_: Any) -> None:
        if not self._rename:
            return
        if kind is None:
            os.replace(self._temp, self._final)
        elif os.path.exists(self._temp):
            os.remove(self._temp)


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
    """The seal of a finished folder. `fingerprint` names its content: kind, config, inputs, counts and file hashes."""

    kind: str
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, Any]
    books: list[dict[str, Any]]
    files: dict[str, str]  # relative name -> sha256 hex
    versions: dict[str, str]
    created: str
    fingerprint: str


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass (or dict) as plain JSON values, the form stored in manifests and compared by `begin`."""
    value = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else config
    return json.loads(json.dumps(value, default=str, sort_keys=True))


def digest(value: Any) -> str:
    """sha256 hex of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_file(folder: Folder, name: str) -> str:
    """sha256 hex of one file, read in 1 MiB pieces."""
    total = hashlib.sha256()
    with folder.fs.open_input_stream(folder.file(name)) as stream:
        while piece := stream.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


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
) -> Manifest:
    """Write the manifest, last. `files` is relative name -> sha256, found by the workers; None hashes them here."""
    names = [name for name in folder.list() if name not in (MANIFEST, STARTED)]
    hashes = {name: hash_file(folder, name) for name in names} if files is None else dict(files)
    if missing := sorted(set(hashes) ^ set(names)):
        raise ValueError(f"Cannot seal {folder}: files and hashes differ for {missing[:5]}. Run the step again.")
    body = {
        "kind": kind,
        "config": _without(plain(config), ignore),
        "inputs": dict(inputs),
        "counts": plain(dict(counts)),
        "books": [plain(book) for book in books],
        "files": dict(sorted(hashes.items())),
    }
    manifest = Manifest(
        **body, versions=versions(), created=datetime.now(UTC).isoformat(timespec="seconds"), fingerprint=digest(body)
    )
    folder.write_json(MANIFEST, dataclasses.asdict(manifest))
    folder.remove(STARTED)
    return manifest


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


CURRENT = "CURRENT.json"


def publish(workspace: Folder, *, collection: Folder, model: Folder, index: Folder) -> None:
    """Point the workspace's CURRENT.json at a matching (collection, model, index), for the query service.

    Paths are kept relative to the workspace, so that it can be copied elsewhere whole.

    Raises: ValueError if the three were not made from each other.
    """
    seals = {
        "collection": read_manifest(collection, "collection"),
        "model": read_manifest(model, "model"),
        "index": read_manifest(index, "index"),
    }
    for name in ("collection", "model"):
        made_with = seals["index"].inputs.get(name)
        if made_with != seals[name].fingerprint:
            raise ValueError(
                f"The index {index} was made with {name} {str(made_with)[:12]}, not with "
                f"{seals[name].fingerprint[:12]} at {collection if name == 'collection' else model}. Build it again."
            )
    folders = {"collection": collection, "model": model, "index": index}
    relative = {name: folder.uri.removeprefix(workspace.uri + "/") for name, folder in folders.items()}
    fingerprints = {name: manifest.fingerprint for name, manifest in seals.items()}
    workspace.write_json(CURRENT, {"paths": relative, "fingerprints": fingerprints})


def read_current(workspace: Folder) -> dict[str, Folder]:
    """The published folders: {"collection": ..., "model": ..., "index": ...}.

    Raises: ValueError if nothing is published there yet.
    """
    if not workspace.exists(CURRENT):
        raise ValueError(
            f"{workspace} has no {CURRENT}: no pipeline has finished there. "
            f"Run `python -m ray_jobs.pipeline faces --workspace {workspace}` first."
        )
    paths = workspace.read_json(CURRENT)["paths"]
    return {
        name: Folder(path) if "://" in path or path.startswith("/") else workspace / path
        for name, path in paths.items()
    }
