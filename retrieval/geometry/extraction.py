"""Local features of a collection's photos, taken once and kept on storage, in parts as the collection is.

    network.safetensors       the weights of the extractor, if it has any: no worker needs another file
    features/part-N.parquet   of each photo of the part that is in the splits, in order of image_id
    rejected/features-N.parquet   photos that end what looks at them, and why: they have no features

Every file appears whole under its name, made from the same inputs to the same bytes, so any part may be done again.
"""

from __future__ import annotations

import bisect
import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.artifacts.collection import read_catalog, read_catalog_of_part
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.progress import Progress, counted, silent
from retrieval.artifacts.storage.patience import patiently
from retrieval.artifacts.writing.done import Done
from retrieval.geometry.extractors.sift import sift
from retrieval.geometry.features import NONE, Extractor, Features, extract
from retrieval.geometry.settings import FeatureConfig
from retrieval.geometry.stages import features_of_row, features_table, group_begins, left_out_of, write_left_out
from retrieval.images.pixels import BadImage

KIND = "features"

NETWORK = "network.safetensors"

NOBODY: Mapping[int, BadImage] = MappingProxyType({})
_AS_KEPT: dict[str, Any] = {"compression": "none", "row_group_size": 1, "write_statistics": False}
"""How features are written: photos of pairs lie all over the collection, so each is read alone, 300 to 600 KB."""
_ROWS = b"rows"  # in a file's footer: of each photo in it, the row in the collection's part
_HELD = 512  # photos whose features stay in memory
_FOOTERS = 256  # parts whose footers do: 300 KB each


def parts_of(collection: Folder, splits: Sequence[str]) -> tuple[list[int], int]:
    """Parts that hold photos of these splits, and how many photos. Raises: ValueError if there is none."""
    photos = read_catalog(collection, splits, columns=["part"])
    if not len(photos):
        raise ValueError(
            f"{collection} has no photo in the splits {', '.join(splits)}, so there is nothing to look at. "
            f"Name others with --splits, or ingest with --keep-singles, which keeps unlabelled photos."
        )
    return sorted(set(photos["part"].to_pylist())), len(photos)


def extract_part(
    collection: Folder,
    out: Folder,
    part: int,
    splits: Sequence[str],
    config: FeatureConfig,
    progress: Progress = silent,
    without: Mapping[int, BadImage] = NOBODY,
) -> dict[str, Any]:
    """Local features of one part's photos, unless they are there. Returns part, taken, broken, features, resumed.

    Args: without: photos to leave out, by their position among the part's, and why. They have no features.
    """
    name = f"features/{part_name(part)}"
    resumed = (done := out.done(name)) is not None
    if done is None:
        photos, jpegs = _photos(collection, part, splits)
        image_ids, looks = photos["image_id"].to_pylist(), _looks(out, config)
        each = enumerate(counted(jpegs, "photos", progress))
        found = [NONE if at in without else looks(jpeg) for at, jpeg in each]
        write_left_out(out, "features", part, {image_ids[at]: bad for at, bad in without.items()})
        table = features_table(image_ids, found, photos["row"].to_pylist())
        counts = {"taken": len(table), "broken": len(without), "features": sum(len(one.keypoints) for one in found)}
        done = _keep(out, name, table, counts)
    return {"part": part, **done.about, "resumed": int(resumed)}


def _keep(out: Folder, name: str, table: pa.Table, counts: dict[str, int]) -> Done:
    """The footer says which rows there are, so that who looks for one reads no column for it."""
    known = table.replace_schema_metadata({_ROWS: json.dumps(table["row"].to_pylist())})
    return out.write_table(name, known, about=counts, **_AS_KEPT)


def copy_part(before: Folder, collection: Folder, out: Folder, part: int, splits: Sequence[str]) -> dict[str, Any]:
    """Features of a part whose photos were all described before, from there, as `extract_part` would write them.

    Nothing is written where they are there, or one of the photos is not in `before`. Returns part, taken.
    """
    name, taken = f"features/{part_name(part)}", 0
    if out.done(name) is None and before.exists(name):
        photos, old = read_catalog_of_part(collection, part, splits), before.read_table(name)
        row_of = {image_id: row for row, image_id in enumerate(old["image_id"].to_pylist())}
        image_ids = photos["image_id"].to_pylist()
        if row_of.keys() >= set(image_ids):
            rows = [row_of[image_id] for image_id in image_ids]
            left = left_out_of(before, "features", part)
            left = {image_id: bad for image_id, bad in left.items() if image_id in set(image_ids)}
            stay, at = old.take(pa.array(rows, pa.int64())), old.schema.get_field_index("row")
            table = stay.set_column(at, old.schema.field(at), photos["row"].cast(pa.int32()))
            write_left_out(out, "features", part, left)
            taken, num = len(table), sum(table["num"].to_pylist())
            counts = {"taken": taken, "broken": len(left), "features": num}
            _keep(out, name, table.combine_chunks(), counts)
    return {"part": part, "taken": taken}


def try_features(
    collection: Folder,
    out: Folder,
    part: int,
    splits: Sequence[str],
    config: FeatureConfig,
    only: Sequence[int],
    progress: Progress = silent,
) -> list[str]:
    """Look at these photos of a part, by their positions, and write nothing. Returns the image_ids of all."""
    photos, jpegs = _photos(collection, part, splits)
    looks = _looks(out, config)
    progress("photos", 0, len(only))  # from now on it is the next one
    for at in counted(only, "photos", progress):
        looks(jpegs[at])
    return photos["image_id"].to_pylist()


def _looks(out: Folder, config: FeatureConfig) -> functools.partial[Features]:
    extractor: Extractor = sift if config.extractor == "sift" else _network(out)
    return functools.partial(extract, max_features=config.max_features, max_side=config.max_side, extractor=extractor)


@functools.lru_cache(maxsize=1)
def _network(out: Folder) -> Extractor:
    from retrieval.geometry.extractors.aliked import Aliked

    return Aliked(out.read_bytes(NETWORK))


def _photos(collection: Folder, part: int, splits: Sequence[str]) -> tuple[pa.Table, list[bytes]]:
    """The catalog's lines of a part's photos, and their JPEGs."""
    photos = read_catalog_of_part(collection, part, splits)
    jpegs = collection.read_table(f"images/{part_name(part)}", columns=["jpeg"]).take(photos["row"])["jpeg"]
    return photos, jpegs.to_pylist()


class KeptFeatures:
    """Features of photos by part and row in the collection. Those used last stay in memory, some 300 KB each.

    Safe to use from several threads.
    """

    def __init__(self, folder: Folder, held: int | None = None) -> None:
        """Args: held: photos whose features stay in memory; None: `_HELD`."""
        self._folder, self._num_held = folder, _HELD if held is None else held
        self._lock = threading.Lock()
        self._footer = functools.lru_cache(maxsize=_FOOTERS)(self._read_footer)
        self._held: OrderedDict[tuple[int, int], Features] = OrderedDict()

    def __getitem__(self, place: tuple[int, int]) -> Features:
        """Raises: ValueError for a photo that has none here."""
        with self._lock:
            if place in self._held:
                self._held.move_to_end(place)
                return self._held[place]
        read = self._read(*place)  # others need not wait for the storage
        asked = read.pop(place)
        with self._lock:
            self._held |= read
            self._held[place] = asked
            self._held.move_to_end(place)  # what was asked for is let go last
            while len(self._held) > self._num_held:
                self._held.popitem(last=False)
        return asked

    def look(self, jpeg: bytes) -> Features:
        """Features of another photo, as they would be kept."""
        return self._looking(jpeg)

    @functools.cached_property
    def _looking(self) -> functools.partial[Features]:
        return _looks(self._folder, FeatureConfig(**read_manifest(self._folder, KIND).config["features"]))

    def _read_footer(self, part: int) -> tuple[pq.FileMetaData | None, dict[int, int]]:
        """A part's footer, and row in the collection -> row in the file; None and nothing where there is none."""
        name = f"features/{part_name(part)}"
        if not self._folder.exists(name):
            return None, {}
        with self._folder.fs.open_input_file(self._folder.file(name)) as stream:
            footer = pq.read_metadata(stream)
        if (said := (footer.metadata or {}).get(_ROWS)) is not None:
            rows = json.loads(said)
        else:  # kept by an earlier release
            rows = self._folder.read_table(name, columns=["row"])["row"].to_pylist()
        return footer, {row: at for at, row in enumerate(rows)}

    def _read(self, part: int, row: int) -> dict[tuple[int, int], Features]:
        """All photos that are read together with that one, by place."""
        footer, rows = self._footer(part)
        if footer is None or row not in rows:
            raise ValueError(
                f"{self._folder} holds no features of row {row} of part {part}: its photos were not among the "
                f"--splits that python -m ray_jobs.describe was given. Describe them too."
            )
        name, at = f"features/{part_name(part)}", bisect.bisect_right(group_begins(footer), rows[row]) - 1
        read = lambda: self._read_group(name, footer, at)  # noqa: E731
        group = patiently(read, f"reading {self._folder / name}")
        return {(part, one["row"]): features_of_row(one) for one in group.to_pylist()}

    def _read_group(self, name: str, footer: pq.FileMetaData, at: int) -> pa.Table:
        with self._folder.fs.open_input_file(self._folder.file(name)) as stream:
            return pq.ParquetFile(stream, metadata=footer).read_row_group(at)


@functools.lru_cache(maxsize=1)
def kept_features(folder: Folder) -> KeptFeatures:
    """Kept between the tasks that one worker process does."""
    return KeptFeatures(folder)
