"""Which pairs of photos are worth a geometric check: the work of each stage, by parts.

    vocabulary   words, of a sample of photos' descriptors            vocabulary.f32
    words        of each part's descriptors                           words/part-N.parquet
    listed       all photos, and the mean of their histograms         photos.parquet, mean.f32
    vectors      each photo's histogram of words less the mean        vectors/slice-N.f16
    candidates   the k most alike of each of a block of photos        candidates/from-ROW.parquet
    pairs        all of them, each once                               pairs/round-0.parquet
    followed     once those are checked, photos with a link to one    pairs/round-R.parquet
                 and the same photo

Every file appears whole under its name, made from the same inputs to the same bytes, so any stage may be done again.
Its done-marker says what was counted. Vectors are 8 KB a photo, so no process holds more than two slices of them, and
they are taken away at the end.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.folder import Folder, part_name
from retrieval.geometry.extraction import KeptFeatures
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.stages import PAIRS, features_of_part, links_of_rounds, pairs_name, read_rows
from retrieval.geometry.vocabulary import Quantiser, apart, histogram, nearest, train_words

_VOCABULARY, _MEAN = "vocabulary.f32", "mean.f32"

SLICE = 8192  # photos whose vectors are one file: 64 MB of 4,096 words

_ROWS_AT_ONCE = 4096  # photos whose neighbours' neighbours are counted together

_WORDS = pa.schema([("image_id", pa.string()), ("words", pa.binary())])

_PHOTOS = pa.schema(
    [("image_id", pa.string()), ("label", pa.string())] + [(name, pa.int32()) for name in ("part", "row", "num")]
)

_CANDIDATES = pa.schema([("a", pa.int32()), ("b", pa.int32())])

SAMPLED = 4096  # photos, at most, of which words are learned: no more are read, however many there are

_READ_TOGETHER = 1 << 15  # pairs: a block's task reads one or two row groups, 800 KB each


def train_vocabulary(
    collection: Folder, out: Folder, splits: Sequence[str], config: ReconstructConfig, described: Folder | None = None
) -> int:
    """Words of a sample of descriptors, unless they are there. Returns how many.

    Args: described: where the photos' local features are kept; None: in `out`.

    Raises: ValueError if no photo has any descriptor, or one has not been described.
    """
    if (done := out.done(_VOCABULARY)) is None:
        photos = read_catalog(collection, splits)
        sample = _sample(described or out, photos, config)
        if not len(sample):
            raise ValueError(f"None of the {len(photos)} photos shows any local feature: they are blank, or too small.")
        words = train_words(sample, config.num_words, config.seed)
        done = out.write_bytes(_VOCABULARY, words.tobytes(), about={"words": len(words)})
    return done.about["words"]


def _sample(described: Folder, photos: pa.Table, config: ReconstructConfig) -> np.ndarray:
    """Descriptors of the photos that are drawn, as many of each as make up the sample."""
    drawn = np.random.default_rng(config.seed).permutation(len(photos))[:SAMPLED]
    photos = photos.take(pa.array(np.sort(drawn))).sort_by([("part", "ascending"), ("image_id", "ascending")])
    each = max(1, config.vocabulary_sample // max(1, len(photos)))
    features, taken = KeptFeatures(described, held=1), []
    for photo in photos.to_pylist():
        descriptors = features[photo["part"], photo["row"]].descriptors
        seed = hashlib.sha256(f"{config.seed}\0{photo['image_id']}".encode()).digest()[:8]
        draw = np.random.default_rng(int.from_bytes(seed)).permutation(len(descriptors))[:each]
        taken.append(descriptors[np.sort(draw)])
    return np.concatenate(taken) if taken else np.empty((0, 128), np.uint8)


def _vocabulary(out: Folder) -> np.ndarray:
    return np.frombuffer(out.read_bytes(_VOCABULARY), np.float32).reshape(-1, 128)


@functools.lru_cache(maxsize=1)
def _quantiser(out: Folder) -> Quantiser:
    """Kept between the parts that one worker process does."""
    return Quantiser(_vocabulary(out))


def assign_part(out: Folder, part: int, described: Folder | None = None) -> dict[str, Any]:
    """Words of one part's descriptors, unless they are there. Returns part, taken, resumed."""
    name = f"words/{part_name(part)}"
    resumed = (done := out.done(name)) is not None
    if done is None:
        found = features_of_part(described or out, part)
        rows = [{"image_id": i, "words": _quantiser(out).assign(f.descriptors).tobytes()} for i, f in found]
        table = pa.Table.from_pylist(rows, _WORDS)
        done = out.write_table(name, table, about={"taken": len(rows)}, compression="none")
    return {"part": part, **done.about, "resumed": int(resumed)}


def list_photos(collection: Folder, out: Folder, splits: Sequence[str]) -> int:
    """Write which photos there are, and the mean of their histograms, unless they are there. Returns how many photos.

    Raises: ValueError if one has not been described.
    """
    if (done := out.done(_MEAN)) is not None:
        return done.about["photos"]
    photos, num_words = read_catalog(collection, splits), len(_vocabulary(out))
    total, counts = np.zeros(num_words), np.zeros(len(photos), dtype=np.int32)
    for rows, words in _words_of_parts(out, photos):
        counts[rows] = [len(own) for own in words]
        total += _histograms(words, num_words).sum(axis=0, dtype=np.float64)
    columns = {name: photos[name] for name in ("image_id", "label", "part", "row")} | {"num": counts}
    out.write_table("photos.parquet", pa.table(columns).cast(_PHOTOS), about={}, row_group_size=SLICE)
    mean = (total / max(1, int((counts > 0).sum()))).astype(np.float32)
    return out.write_bytes(_MEAN, mean.tobytes(), about={"photos": len(photos)}).about["photos"]


def write_slice(out: Folder, number: int) -> dict[str, int]:
    """Vectors of photos [number * SLICE, ...), as `vocabulary.apart` has them, unless they are there. Returns number,
    taken, resumed."""
    name = _slice_name(number)
    resumed = (done := out.done(name)) is not None
    if done is None:
        photos = read_rows(out, "photos.parquet", number * SLICE, SLICE)
        mean = _mean(out)
        vectors = np.empty((len(photos), len(mean) + 1), dtype=np.float16)
        for rows, words in _words_of_parts(out, photos):
            vectors[rows] = apart(_histograms(words, len(mean)), mean)
        done = out.write_bytes(name, vectors.tobytes(), about={"taken": len(photos)})
    return {"number": number, **done.about, "resumed": int(resumed)}


def _mean(out: Folder) -> np.ndarray:
    return np.frombuffer(out.read_bytes(_MEAN), np.float32)


def slices(out: Folder, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Where each slice that holds some of photos [start, stop) begins, and the vectors of those, (n, K + 1) float16."""
    row = 2 * (len(_mean(out)) + 1)  # bytes
    for first in range(start // SLICE * SLICE, stop, SLICE):
        begin, end = max(start, first), min(stop, first + SLICE)
        data = out.read_range(_slice_name(first // SLICE), (begin - first) * row, (end - begin) * row)
        yield begin, np.frombuffer(data, np.float16).reshape(end - begin, row // 2)


def remove_vectors(out: Folder) -> None:
    """Take away what was only needed to find candidates."""
    out.remove_all("vectors")


def _histograms(words: Sequence[np.ndarray], num_words: int) -> np.ndarray:
    return np.stack([histogram(own, num_words) for own in words])


def _words_of_parts(out: Folder, photos: pa.Table) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Part by part, which of the photos lie in it, (n,) int64, and the words of each."""
    parts = photos["part"].to_numpy()
    order = np.argsort(parts, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(parts[order])) + 1) if len(order) else ():
        table = out.read_table(f"words/{part_name(int(parts[rows[0]]))}")
        ids = photos["image_id"].take(pa.array(rows))
        places = pc.index_in(ids, table["image_id"])
        if places.null_count:
            missed = ids.filter(pc.is_null(places))[0].as_py()
            raise ValueError(
                f"There are no local features of {missed}: its split was not among the --splits that python -m "
                f"ray_jobs.describe was given. Describe it too."
            )
        words = table["words"].take(places).to_pylist()
        yield rows, [np.frombuffer(own, np.int32) for own in words]


def look_up_block(out: Folder, block: int, size: int, num: int, config: ReconstructConfig) -> dict[str, Any]:
    """Candidates of photos [block * size, ...) of `num`, unless they are there. Returns block, taken, resumed."""
    start, stop = block * size, min((block + 1) * size, num)
    name = _block_name(start)
    resumed = out.done(name) is not None
    if not resumed:
        asked = np.concatenate([vectors for _, vectors in slices(out, start, stop)])
        pairs = nearest(start, asked, slices(out, 0, num), num, config.num_candidates)
        out.write_table(name, pa.table({"a": pairs[:, 0], "b": pairs[:, 1]}, schema=_CANDIDATES), about={})
    return {"block": block, "taken": stop - start, "resumed": int(resumed)}


def join_blocks(out: Folder, size: int, num: int) -> int:
    """All candidates, each pair once, as the pairs of round 0. Returns how many."""
    tables = [out.read_table(_block_name(start)) for start in range(0, num, size)]
    keys = np.unique(np.concatenate([t["a"].to_numpy().astype(np.int64) * num + t["b"].to_numpy() for t in tables]))
    return write_pairs(out, 0, np.stack([keys // num, keys % num], axis=1))


def follow_links(out: Folder, round_: int, config: ReconstructConfig) -> int:
    """Pairs not yet checked of photos that link to one and the same photo, unless they are there. Returns how many.

    Two photos of a place from either end share few words, and yet many neighbours. Each photo proposes at most
    `num_candidates`, those with most neighbours in common, so that checks stay in proportion to photos.
    """
    if (done := out.done(pairs_name(round_))) is None:
        num = len(out.read_table("photos.parquet", columns=["part"]))
        tried = pa.concat_tables([out.read_table(pairs_name(before), ["a", "b"]) for before in range(round_)])
        linked = _graph(num, links_of_rounds(out, round_))
        checked = _graph(num, tried)
        found = [_proposals(linked, checked, at, config.num_candidates) for at in range(0, num, _ROWS_AT_ONCE)]
        return write_pairs(out, round_, np.unique(np.concatenate(found), axis=0))
    return done.about["pairs"]


def _graph(num: int, pairs: pa.Table) -> sparse.csr_array:
    """(num, num) int32: 1 where two photos are a pair, either way round."""
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    ones = np.ones(2 * len(a), np.int32)
    return sparse.csr_array((ones, (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(num, num))


def _proposals(linked: sparse.csr_array, checked: sparse.csr_array, start: int, num: int) -> np.ndarray:
    """(n, 2) int32 pairs, a < b, that a block of photos proposes, `num` a photo; some twice."""
    rows = slice(start, start + _ROWS_AT_ONCE)
    shared = linked[rows] @ linked
    fresh = (shared - shared.multiply(checked[rows])).tocoo()
    photo, other = fresh.row + start, fresh.col
    order = np.lexsort((other, -fresh.data, photo))
    order = order[(fresh.data[order] > 0) & (photo[order] != other[order])]
    photo, other = photo[order], other[order]
    rank = np.arange(len(photo)) - np.searchsorted(photo, photo)
    return np.sort(np.stack([photo, other], axis=1)[rank < num].astype(np.int32), axis=1)


def write_pairs(out: Folder, round_: int, pairs: np.ndarray) -> int:
    """The pairs of a round, (n, 2) int rows of photos.parquet, each once. Returns how many."""
    a, b = pairs.T
    photos = out.read_table("photos.parquet", columns=["part", "row"])
    part, row = photos["part"].to_numpy(), photos["row"].to_numpy()
    order = np.lexsort((b, a, part[b], part[a]))  # blocks of neighbours read few parts each
    a, b = a[order], b[order]
    table = pa.table([a, b, part[a], row[a], part[b], row[b]], schema=PAIRS)
    out.write_table(pairs_name(round_), table, about={"pairs": len(a)}, row_group_size=_READ_TOGETHER)
    return len(a)


def _block_name(start: int) -> str:
    return f"candidates/from-{start:09d}.parquet"


def _slice_name(number: int) -> str:
    return f"vectors/slice-{number:05d}.f16"
