"""Results verified by geometry: of the first, those whose points fit one geometry with the query's come first (places).

The crops are the service's own, so nothing hostile is read, and none is looked at larger than takes a second or two:
that is why this runs here and not where it can be killed. No pair is begun after a time that is set, nor when nobody
waits any more, and what was not verified says so by having no count.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from serve.edge import Refusal
from serve.engine.version import Version
from serve.engine.wording import Found
from serve.schemas import SearchOptions
from serve.settings import ServeArgs

if TYPE_CHECKING:
    from retrieval.search.rerank import Seen

USUAL = 10
"""Results verified of a query that does not say how many, where local features were kept."""


def usual_rerank(args: ServeArgs, version: Version) -> int:
    """Results verified of a query that does not say how many."""
    if version.config.crop != "fit":
        return 0
    if args.rerank is None:
        return 0 if version.local is None else min(USUAL, args.max_rerank)
    return args.rerank


def decided(args: ServeArgs, version: Version, options: SearchOptions, with_photo: bool) -> SearchOptions:
    """The options with `rerank` as a number."""
    if options.rerank is not None:
        return options
    is_one_photo = with_photo or options.image_id is not None
    return options.model_copy(update={"rerank": usual_rerank(args, version) if is_one_photo else 0})


def check_rerank(args: ServeArgs, version: Version, options: SearchOptions, with_photo: bool) -> None:
    """Raises: Refusal bad-parameter for what cannot be verified here."""
    if not options.rerank:
        return
    if options.text is not None:
        raise _bad("words have no points to match. Leave it out.")
    if version.config.crop != "fit":
        raise _bad("this gallery is of faces, which have no geometry of their own. Leave it out.")
    if options.rerank > args.max_rerank:
        raise _bad(f"it is {options.rerank}, the limit of this server is {args.max_rerank}.")
    if not with_photo and options.image_id is None:
        raise _bad("there is no photo to verify with. Send one, or give image_id.")


async def verified(
    args: ServeArgs, version: Version, options: SearchOptions, found: Found, crop: bytes | None
) -> Found:
    """Found, in order of evidence, and not more than `k` of it.

    Args: crop: of the query, JPEG; None: that of `image_id`.
    """
    gone = threading.Event()
    try:
        return await version.in_thread(lambda: _verified(args, version, options, found, crop, gone.is_set))
    except asyncio.CancelledError:
        gone.set()  # a thread cannot be ended: it ends by itself, with the pair that it is at
        raise


def _verified(
    args: ServeArgs,
    version: Version,
    options: SearchOptions,
    found: Found,
    crop: bytes | None,
    gone: Callable[[], bool],
) -> Found:
    from retrieval.search.rerank import look, order_by_inliers, verify_each

    num = options.rerank or 0
    query = _seen(version, options.image_id or "") if crop is None else crop
    if query is None:
        raise Refusal("not-found", f"There is no image {options.image_id!r} in the gallery.")
    first = [(hit, _seen(version, hit.image_id)) for hit in found.hits[:num]]
    there = [(hit, seen) for hit, seen in first if seen is not None]
    hits = [*(hit for hit, _ in there), *found.hits[num:]]
    looks = look if version.local is None else version.local.look
    told = verify_each(query, (seen for _, seen in there), args.rerank_timeout_s, gone, looks)
    inliers = np.array([0 if one is None else one.num_inliers for one in told], dtype=np.int64)
    order = order_by_inliers(np.arange(len(hits)), inliers)
    evidence = {hit.image_id: one for hit, one in zip(hits, told, strict=False) if one is not None}
    return dataclasses.replace(found, hits=[hits[place] for place in order][: options.k], evidence=evidence)


def _seen(version: Version, image_id: str) -> Seen | None:
    """The local features of an image that were kept, or its crop; None if it was deleted while the query was under
    way."""
    try:
        if version.local is not None:
            with contextlib.suppress(KeyError, ValueError):  # it was added since; its split was not described
                return version.local[version.gallery.sealed.place(version.gallery.row_of(image_id))]
        return version.gallery.jpeg(image_id)
    except KeyError:
        return None


def _bad(message: str) -> Refusal:
    return Refusal("bad-parameter", f"rerank: {message}")
