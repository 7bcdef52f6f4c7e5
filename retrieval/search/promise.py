"""An index that promises recall, memory or latency: its kind chosen on a sample, its settings on its own shards.

    choose_kind(embeddings, out, config, dim, num)    -> chosen.json: the kind, and what each setting did on a sample
    try_shard(embeddings, out, config, dim, 0, 1)     -> the same of one shard that was built, against exact search
    keep(out, config, tried, num, shards)             -> chosen.json again; ValueError if the promise is not kept

A sample is smaller than the index, and recall falls as an index grows: so the sample chooses the kind, and how hard to
look is chosen of what the finished shards showed.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from retrieval.artifacts.embeddings import part_by_part
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import CHOSEN, IDS, chosen_settings
from retrieval.search.budget import (
    AS_GOOD,
    K,
    Measured,
    asked,
    candidates,
    choose,
    measure,
    memory_of,
    name_of,
    settings,
    told,
)
from retrieval.search.engines.engine import kind_of
from retrieval.search.index import Shard, build_shard, train_index
from retrieval.search.ranking import Neighbours, drop_rows, merge_top_k, scan
from retrieval.search.settings import IndexConfig
from retrieval.search.shards import draw_sample, images_of, num_shards

_QUERIES = 200
_SAMPLE = 50_000  # vectors of the sample, and ...
_SAMPLE_BYTES = 128 << 20  # ... their bytes, at most
SHARDS_TRIED = 4
"""Of how many shards the finished index is judged, drawn evenly."""

_MEASURED = ("recall", "seconds", "bytes_each")
_SETTINGS = ("factory", "nprobe", "ef_search", "refine_factor")


def choose_kind(
    embeddings: Folder, out: Folder, config: IndexConfig, dim: int, num_threads: int = 1
) -> tuple[IndexConfig, str]:
    """Measure all kinds on a sample of what `assign_rows` wrote, and write down the one to build.

    Returns: the settings to build with, and why, in a line.

    Raises: ValueError if no kind keeps the promise, with those that come nearest.
    """
    if (done := out.done(CHOSEN)) is None:
        num = out.num_rows(IDS)
        seen, sampled = _measure_kinds(embeddings, out, config, dim, num, num_threads)
        shard = -(-num // num_shards(config, num, dim))
        expected = [one.of_index(num, shard, sampled) for one in seen]
        best = choose(expected, config, num)
        why = f"{told(best, num)} expected of {num:,} images, by {sampled:,} of them; asked: {asked(config)}"
        value = {"settings": _settings_of(best.config), "sample": [_figures(one) for one in expected]}
        done = out.write_json(CHOSEN, value, about={"why": why})
    return settings_in(out, config), str(done.about["why"])


def settings_in(out: Folder, config: IndexConfig) -> IndexConfig:
    """The settings that were chosen for an index."""
    return dataclasses.replace(config, **chosen_settings(out)) if out.exists(CHOSEN) else config


def _figures(one: Measured) -> dict[str, Any]:
    return {"settings": _settings_of(one.config)} | {name: getattr(one, name) for name in _MEASURED}


def _settings_of(config: IndexConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _SETTINGS}


def _measure_kinds(
    embeddings: Folder, out: Folder, config: IndexConfig, dim: int, num: int, num_threads: int
) -> tuple[list[Measured], int]:
    """What each setting of each kind did, and on how many vectors."""
    shard = -(-num // num_shards(config, num, dim))
    most = max(1, min(_SAMPLE, _SAMPLE_BYTES // (4 * dim), shard))
    sample = draw_sample(embeddings, out, min(num, most + _QUERIES), num, config.seed, dim)
    asking = np.random.default_rng(config.seed).permutation(len(sample))[: min(_QUERIES, len(sample) // 2 or 1)]
    gallery = np.delete(sample, asking, axis=0) if len(sample) > 1 else sample
    queries, rows = sample[asking], np.arange(len(gallery))
    exact, nobody = scan(queries, gallery, K).rows, np.full(len(queries), -1)
    found: list[Measured] = []
    for kind in candidates(config, len(gallery), dim):
        with tempfile.TemporaryDirectory() as temp:
            folder, name = Folder.of(temp), f"sample{kind_of(kind[0].factory).suffix}"
            built = build_shard(kind[0], train_index(kind[0], gallery, num_threads), gallery, rows)
            done = folder.write_bytes(name, built)
            beside = memory_of(kind[0], done.num_bytes, len(gallery), dim)
            found += measure(kind, Shard.load(folder, name), queries, exact, nobody, beside, AS_GOOD)
    return found, len(gallery)


def try_shard(
    embeddings: Folder, out: Folder, config: IndexConfig, dim: int, shard: int, shards: int
) -> list[dict[str, Any]]:
    """How each setting does on a shard that is built, asked for neighbours of images it holds.

    Args: config: with the kind that was built.

    Returns: {"settings", "recall", "seconds", "bytes_each"} of each setting tried.
    """
    name = f"shard-{shard:05d}{kind_of(config.factory).suffix}"
    opened, images = Shard.load(out, name), images_of(out, shard, shards)
    drawn = np.sort(np.random.default_rng(config.seed).permutation(len(images.rows))[:_QUERIES])
    keys, parts, places = images.keys, images.parts, images.places
    queries = np.empty((len(drawn), dim), dtype=np.float32)
    for mine, vectors in part_by_part(embeddings, keys[drawn], parts[drawn], places[drawn], dim):
        queries[mine] = vectors
    itself = images.rows[drawn]
    pieces = part_by_part(embeddings, keys, parts, places, dim)
    near = _exact(queries, ((images.rows[at], some) for at, some in pieces))
    beside = memory_of(config, out.list()[name], len(opened), dim)
    seen = measure(settings(config), opened, queries, drop_rows(near, itself, K).rows, itself, beside)
    return [_figures(one) for one in seen]


def _exact(queries: np.ndarray, pieces: Iterator[tuple[np.ndarray, np.ndarray]]) -> Neighbours:
    """The K + 1 nearest of all that comes, rows and vectors some at a time."""
    best: Neighbours | None = None
    for rows, vectors in pieces:
        found = scan(queries, vectors, K + 1)
        found = Neighbours(found.scores, np.where(found.rows >= 0, rows[found.rows], -1))
        best = found if best is None else merge_top_k([best, found], K + 1)
    assert best is not None
    return best


def shards_to_try(shards: int) -> list[int]:
    """Numbers of those that the finished index is judged by."""
    return sorted({int(at) for at in np.linspace(0, shards - 1, min(shards, SHARDS_TRIED))})


def keep(
    out: Folder, config: IndexConfig, tried: Sequence[Sequence[dict[str, Any]]], num: int, shards: int
) -> dict[str, Any]:
    """Choose how hard to look by what the shards showed, and write it down.

    Args: tried: what `try_shard` returned of each. num: images of the index.

    Returns: "factory", "recall", "seconds", "bytes", "why": what the seal says of the promise.

    Raises: ValueError if no setting keeps the promise: the index is left unsealed.
    """
    seen: dict[str, list[dict[str, Any]]] = {}
    for one in (one for shard in tried for one in shard):
        seen.setdefault(str(one["settings"]), []).append(one)
    measured = [
        Measured(
            config=dataclasses.replace(config, **ones[0]["settings"]),
            recall=float(np.mean([one["recall"] for one in ones])),
            seconds=float(np.mean([one["seconds"] for one in ones])) * shards,  # one after another
            bytes_each=float(np.mean([one["bytes_each"] for one in ones])),
        )
        for ones in seen.values()
    ]
    best = choose(measured, config, num)
    why = f"{told(best, num)}; asked: {asked(config)}"
    known = out.read_json(CHOSEN) if out.exists(CHOSEN) else {"sample": []}
    value = {**known, "settings": _settings_of(best.config), "index": [_figures(one) for one in measured]}
    out.write_json(CHOSEN, value, about={"why": why})
    figures = {"recall": best.recall, "seconds": best.seconds, "bytes": round(best.bytes_each * num)}
    return {"factory": best.config.factory, **figures, "why": why}


def measured_in(out: Folder) -> tuple[dict[str, list[tuple[float, float]]], tuple[str, float, float]]:
    """All that was measured to choose: (recall, seconds) of each kind's settings, as the sample lets expect of the
    whole, and under "index" those of the finished shards; then name, recall and seconds of what was chosen."""
    told, lines = out.read_json(CHOSEN), dict[str, list[tuple[float, float]]]()
    for one in told["sample"]:
        lines.setdefault(one["settings"]["factory"], []).append((one["recall"], one["seconds"]))
    lines["index"] = [(one["recall"], one["seconds"]) for one in told["index"]]
    best = next(one for one in told["index"] if one["settings"] == told["settings"])
    return lines, (name_of(IndexConfig(**told["settings"])), best["recall"], best["seconds"])
