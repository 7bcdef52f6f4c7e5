"""From a benchmark as its publishers give it (lists, and a folder of photos) to a source that ingest takes.

The source is a manifest with a row for each gallery image and a row for each query, which has its box: with
crop='fit' ingest cuts a box at full resolution and shrinks it as much as the whole photo would be. An image that is
named and not there gets a row too, so that it ends among the rejected with the reason `missing`.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from retrieval.artifacts.folder import Folder
from retrieval.data.source import Listing, photo_files, walk
from retrieval.evaluation.ground_truth import GroundTruth, read_classic, read_pickle

MANIFEST = "manifest.parquet"

_SCHEMA = pa.schema(
    [("path", pa.string()), ("image_id", pa.string()), ("split", pa.string())]
    + [(edge, pa.float64()) for edge in ("x1", "y1", "x2", "y2")]
)


def benchmark_name(truth: str, given: str = "") -> str:
    """The name given, or that of the file: gnd_roxford5k.pkl is roxford5k.

    Raises: ValueError if there is none, or it cannot name a metric.
    """
    file = posixpath.basename(truth.rstrip("/"))
    name = given or (file.removesuffix(".pkl").removeprefix("gnd_") if file.endswith(".pkl") else "")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, flags=re.ASCII):
        raise ValueError(
            f"The benchmark at {truth} is called '{name}', expected letters, digits, '.', '-' and '_'. Name it with "
            f"--name: roxford5k, rparis6k, oxford5k, paris6k, or a name of your own."
        )
    return name


def read_truth(where: str, name: str, photos: Iterable[str]) -> GroundTruth:
    """The ground truth of a gnd_*.pkl, or of a folder of the classic *_query, _good, _ok and _junk.txt files.

    Args: photos: names of the gallery's photos; the classic files do not list them, the pickles do.

    Raises: ValueError if there is nothing there, or it is no ground truth, or wants to run something.
    """
    files = _truth_files(where)
    if len(files) == 1 and not next(iter(files)).endswith(".txt"):
        return read_pickle(next(iter(files.values())), name)
    return read_classic({file: data.decode("utf-8", "replace") for file, data in files.items()}, photos, name)


def truth_fingerprint(where: str) -> str:
    """sha256 hex of the files that `read_truth` reads."""
    total = hashlib.sha256()
    for file, data in sorted(_truth_files(where).items()):
        total.update(f"{file}\0{len(data)}\0".encode() + data)
    return total.hexdigest()


def _truth_files(where: str) -> dict[str, bytes]:
    root = Folder.of(where)
    kind = root.fs.get_file_info(root.path).type
    if kind == pafs.FileType.NotFound:
        raise ValueError(f"There is no ground truth at {root}. Name a gnd_*.pkl, or a folder of *_query.txt files.")
    if kind == pafs.FileType.File:
        return {root.name: root.parent.read_bytes(root.name)}
    kinds = ("_query.txt", "_good.txt", "_ok.txt", "_junk.txt")
    return {file: root.read_bytes(file) for file in root.list() if "/" not in file and file.endswith(kinds)}


def find_photos(files: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Name -> path, of those names that have a photo: the file NAME.jpg (or another ending), in any folder.

    A name may be with folders (`a/b` is `a/b.jpg` or `x/a/b.jpg`).

    Raises: ValueError if two photos fit one name.
    """
    wanted = set(names)
    depths = {name.count("/") + 1 for name in wanted}
    found: dict[str, str] = {}
    for path in sorted(files):
        parts = posixpath.splitext(path)[0].split("/")
        for name in ("/".join(parts[-depth:]) for depth in depths if depth <= len(parts)):
            if name in wanted and found.setdefault(name, path) != path:
                raise ValueError(
                    f"Two photos are called {name}: {found[name]} and {path}. Name the folder that holds each once."
                )
    return found


def write_manifest(out: Folder, truth: str, name: str, photos: str) -> dict[str, Any]:
    """Write the manifest of a benchmark's gallery and queries.

    Returns: {"truth": its fingerprint, "gallery", "queries": how many are named, "missing": how many have no photo}.

    Raises: ValueError as `read_truth` and `find_photos`, and if no gallery image has a photo.
    """
    root = Folder.of(photos)
    if root.fs.get_file_info(root.path).type != pafs.FileType.Directory:
        raise ValueError(f"There is no folder of photos at {root}. Name the folder that the benchmark's photos are in.")
    files = dict(sorted(photo_files(walk(root), Listing())))
    read = read_truth(truth, name, (posixpath.basename(posixpath.splitext(path)[0]) for path in files))
    found = find_photos(files, {*read.gallery, *read.queries})
    if not any(image in found for image in read.gallery):
        raise ValueError(
            f"None of the {len(read.gallery)} images that {name} names is below {root}: expected files such as "
            f"{read.gallery[0]}.jpg, in any folder, and there are {len(files)} photos of other names. Check --photos."
        )
    out.write_table(MANIFEST, pa.Table.from_pylist(_rows(read, found, root), _SCHEMA))
    named = [*read.gallery, *read.queries]
    return {
        "truth": truth_fingerprint(truth),
        "gallery": len(read.gallery),
        "queries": len(read.queries),
        "missing": sum(image not in found for image in named),
    }


def _rows(truth: GroundTruth, found: Mapping[str, str], root: Folder) -> list[dict[str, Any]]:
    def path(image: str) -> str:
        return (root / found.get(image, f"{image}.jpg")).uri

    rows: list[dict[str, Any]] = [{"path": path(i), "image_id": i, "split": "gallery"} for i in truth.gallery]
    for image, image_id, box in zip(truth.queries, truth.query_ids(), truth.boxes.tolist(), strict=True):
        edges = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
        rows.append({"path": path(image), "image_id": image_id, "split": "query", **edges})
    return rows
