"""The dozen lines that say what a network made elsewhere takes and gives; and where its file is. Nothing heavy.

    # network.toml, in the network's folder, or NAME.toml beside NAME.onnx
    name = "my-net"
    dim = 512                       # length of the embedding
    size = 224                      # side of the square it takes, pixels, or "any"
    licence = "MIT"
    mean = [0.485, 0.456, 0.406]    # of R, G, B from 0 to 1; without mean and std it is given 0 to 255
    std = [0.229, 0.224, 0.225]

Everything else has a default, see `NetworkManifest`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar, get_args

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.progress import Progress, silent
from retrieval.models import known_weights
from retrieval.models.settings import FROZEN
from retrieval.models.text.manifest import TextFiles, TextManifest, read_text

FILE = "network.toml"
Layout = Literal["NCHW", "NHWC"]
Channels = Literal["RGB", "BGR"]
Alignment = Literal["none", "five-points"]
Parsed = TypeVar("Parsed", "NetworkManifest", TextManifest)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkManifest:
    """What a frozen network takes and gives. Travels in the bundle's model.json as `network`."""

    name: str
    """A short one, of letters, digits, dots, hyphens."""
    dim: int
    """Length of its output."""
    licence: str
    """Of the weights. Write unknown where it is."""
    size: int = 0
    """Side of the square that it takes, pixels; 0 (in the file: "any") takes photos of any size."""
    layout: Layout = "NCHW"
    """Order of its input's dimensions: photos, channels, rows, columns, or channels last."""
    channels: Channels = "RGB"
    """Order of the channels."""
    mean: tuple[float, ...] = ()
    """Of R, G and B from 0 to 1: it is given (value / 255 - mean) / std. Without both it is given 0 to 255."""
    std: tuple[float, ...] = ()
    """See mean."""
    alignment: Alignment = "none"
    """five-points: faces turned so that eyes, nose and mouth lie where ArcFace's template of 112 px has them."""
    output: str = ""
    """Name of the output taken; empty where there is only one."""
    trained_on: str = ""
    """What is known of it."""
    source: str = ""
    """Where it comes from."""
    sha256: str = ""
    """Of the file; one that has another is refused. Filled in when it is read."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Known cosines: `same`, from which two photos show the same one."""
    text: TextManifest | None = None
    """Of a network that describes words as well, in the space of its photos: what its text tower takes."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"name is '{self.name}', expected letters, digits, dots and hyphens, for example my-net.")
        for name, known in (("layout", Layout), ("channels", Channels), ("alignment", Alignment)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} is '{getattr(self, name)}', expected one of: {', '.join(get_args(known))}.")
        if self.dim < 1:
            raise ValueError(f"dim is {self.dim}, expected the length of the network's output, 1 or more.")
        if not self.licence.strip():
            raise ValueError("licence is empty. Write what the weights' author says, or unknown.")
        if self.size != 0 and not 8 <= self.size <= 2048:
            raise ValueError(f'size is {self.size}, expected "any" or 8 to 2048 pixels.')
        _check_normalisation(self.mean, self.std)
        if odd := {name: value for name, value in self.thresholds.items() if not -1 <= value <= 1}:
            raise ValueError(f"thresholds are cosines, -1 to 1, got {odd}.")


_SFACE: dict[str, Any] = {
    "dim": 128,
    "size": 112,
    "alignment": "five-points",
    # OpenCV's own: cosine 0.363 is where FaceRecognizerSF tells two people apart best on LFW.
    "thresholds": {"same": 0.363},
}
KNOWN_NETWORKS: Mapping[str, Mapping[str, Any]] = {"sface": _SFACE, "sface-fp32": _SFACE}
"""What the files of `known_weights` take and give, where they are networks that describe a photo."""


@dataclass(frozen=True, slots=True)
class NetworkFiles:
    """A network that somebody brings: what it takes and gives, its file, and those of its text tower if it has one."""

    manifest: NetworkManifest
    content: bytes
    text: TextFiles | None = None


def read_network(backbone: str, progress: Progress = silent) -> NetworkFiles:
    """The network that `onnx:...` names.

    Args: backbone: onnx:NAME of a known network, which is downloaded where it is not found; onnx:FILE or onnx:FOLDER,
        local or in an object store, with a manifest beside it. A file whose bytes are known needs none.

    Raises: ValueError if there is no such file, more than one, no manifest, or one that is wrong or of another file.
    """
    where = backbone.removeprefix(FROZEN)
    if where in KNOWN_NETWORKS:
        return NetworkFiles(known_network(where), known_weights.obtain(where, progress=progress).read_bytes())
    folder, file = _file_of(where)
    content = folder.read_bytes(file)
    digest = hashlib.sha256(content).hexdigest()
    for name in (f"{PurePosixPath(file).stem}.toml", FILE):
        if folder.exists(name):
            return _with_text(folder, _of_file(_read_toml(folder, name), digest, f"{folder}/{name}"), content, name)
    same = [name for name in KNOWN_NETWORKS if known_weights.KNOWN[name].sha256 == digest]
    if not same:
        raise ValueError(
            f"{folder}/{file} has no manifest. Write {FILE} beside it, with name, dim, size, licence, and mean and std "
            f"where the graph does not normalise: docs/how-to/use/bring-a-network.md shows one."
        )
    return NetworkFiles(known_network(same[0]), content)


def _with_text(folder: Folder, manifest: NetworkManifest, content: bytes, name: str) -> NetworkFiles:
    if manifest.text is None:
        return NetworkFiles(manifest, content)
    text, files = read_text(folder, manifest.text, f"{folder}/{name}")
    return NetworkFiles(dataclasses.replace(manifest, text=text), content, files)


def known_network(name: str) -> NetworkManifest:
    """The manifest of a known network: a key of `KNOWN_NETWORKS`."""
    weights = known_weights.known(name)
    return NetworkManifest(
        name=name,
        licence=weights.licence,
        trained_on=weights.trained_on,
        source=weights.published,
        sha256=weights.sha256,
        **KNOWN_NETWORKS[name],
    )


def parse_manifest(values: Mapping[str, Any], where: str) -> NetworkManifest:
    """Raises: ValueError for a field that is unknown, missing or wrong, naming the place."""
    given = dict(values)
    given["size"] = 0 if given.get("size", "any") == "any" else given["size"]
    if (text := given.get("text")) is not None:
        given["text"] = _parsed(TextManifest, text, f"{where}, text")
    return _parsed(NetworkManifest, given, where)


def _parsed(kind: type[Parsed], given: Mapping[str, Any], where: str) -> Parsed:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}, expected a table of lines. Write [text] above them.")
    if unknown := sorted(set(given) - set(fields)):
        raise ValueError(f"{where} has fields that are not known: {unknown}. Known are: {', '.join(fields)}.")
    needed = [name for name, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"{where} does not say: {', '.join(missing)}. Add what is missing.")
    try:
        return kind(**given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error


def _of_file(manifest: NetworkManifest, digest: str, where: str) -> NetworkManifest:
    """The manifest with the file's sha256 in it. Raises: ValueError if it names another."""
    if manifest.sha256 not in ("", digest):
        raise ValueError(
            f"{where} is of another file: it names sha256 {manifest.sha256[:16]}..., the network beside it has "
            f"{digest[:16]}.... Copy the network again, or write a manifest of this one."
        )
    return dataclasses.replace(manifest, sha256=digest)


def _file_of(where: str) -> tuple[Folder, str]:
    """The folder and the name of the one .onnx file that is meant."""
    place = Folder.of(where)
    if place.name.endswith(".onnx"):
        if not place.parent.exists(place.name):
            raise ValueError(f"There is no file {place}. Known by name are: {', '.join(KNOWN_NETWORKS)}.")
        return place.parent, place.name
    found = [file for file in place.list() if file.endswith(".onnx") and "/" not in file]
    if len(found) > 1 and place.exists(FILE) and (text := _read_toml(place, FILE).text) is not None:
        found = [file for file in found if file != text.file]
    if len(found) != 1:
        known = ", ".join(KNOWN_NETWORKS)
        raise ValueError(
            f"{place} holds {len(found)} .onnx files, expected one. Name a file, onnx:{where}/NAME.onnx, or a network "
            f"that is known by name: {known}."
        )
    return place, found[0]


def _read_toml(folder: Folder, name: str) -> NetworkManifest:
    try:
        values = tomllib.loads(folder.read_bytes(name).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder}/{name} is not TOML: {error}. Write lines such as: dim = 512") from error
    return parse_manifest(values, f"{folder}/{name}")


def _check_normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if not mean and not std:
        return
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"mean has {len(mean)} and std {len(std)} values, expected 3 each (R, G, B), or neither.")
    if not all(math.isfinite(value) for value in mean) or not all(0 < value < math.inf for value in std):
        raise ValueError(f"mean is {list(mean)} and std {list(std)}, expected numbers, those of std above 0.")
    if max(map(abs, mean)) > 1 or max(std) > 1:
        raise ValueError(
            f"mean is {list(mean)} and std {list(std)}; they are of values from 0 to 1. Divide them by 255."
        )
