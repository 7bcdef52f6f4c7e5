"""What a search was told, and its answer: look, embed, search, decide. One version answers the whole of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from retrieval.live.filters import Filter
from retrieval.search.expansion import expand
from retrieval.search.settings import ExpansionConfig
from serve.edge import Refusal, refuse_photo
from serve.engine.clock import Clock
from serve.engine.filtering import filter_of
from serve.engine.verifying import check_rerank, decided, verified
from serve.engine.version import Version
from serve.engine.wording import Found, Wording, expansion_of, photo_of
from serve.photos.messages import Looked, Unusable
from serve.schemas import (
    SearchAnswer,
    SearchOptions,
)
from serve.settings import ServeArgs

if TYPE_CHECKING:
    from serve.service import Service

Made = TypeVar("Made")


async def answer(
    service: Service, options: SearchOptions, photo: bytes | None, clock: Clock, prefix: str = ""
) -> SearchAnswer:
    """The answer to a search.

    Args: photo: its bytes; None where the options say what to search with. prefix: of the service's own addresses.

    Raises: Refusal, always with a reason that says whose fault it is.
    """
    version = service.versions.current
    options = decided(service.args, version, options, photo is not None)
    check_options(service.args, version, options, photo is not None)
    allowed = filter_of(options.filter)

    def find(queries: list[np.ndarray]) -> tuple[int, int, list[Found]]:
        """(newest change, images that could answer, what was found for each)"""
        live, searched = version.gallery.refresh(), version.gallery.num_allowed(allowed)
        return live, searched, [search(service.args, version, options, one, allowed) for one in queries]

    done = None
    if options.text is not None:
        with clock.stage("embed"):
            asked, seen = [await _words(version, options.text)], None
    elif photo is None:
        with clock.stage("search"):
            asked, seen = [await version.in_thread(lambda: _embedding_of(version, options))], None
    else:
        seen = await look(service, version, options, photo, clock)
        plain = allowed is None and not (options.expand or service.args.expand)
        asked, done = await _embedded(version, seen, find if plain else None, clock)
    if done is None:
        with clock.stage("search"):
            done = await version.in_thread(lambda: find(asked))
    live, searched, found = done
    made = Wording(version, options, prefix)
    first = _best_place(seen)
    faces = made.faces(seen, found) if seen is not None and options.face == "all" else None
    if not found:  # face=all, and there is none, or every one is too poor
        poor = seen.refused[0] if seen is not None and seen.refused else None
        raise refuse_photo("no-face" if poor is None else poor.reason, "" if poor is None else poor.detail)
    if options.rerank:
        crop = None if seen is None else seen.faces[first].jpeg
        with clock.stage("rerank"):
            found[first] = await verified(service.args, version, options, found[first], crop)
    service.metrics.took(clock.spent)
    if photo is not None and seen is not None:
        _offer(service, version, options, photo, seen, asked)
    return SearchAnswer(
        query=None if seen is None else photo_of(seen, seen.faces[first], options.crop),
        results=made.results(found[first]),
        decision=made.decision(found[first]),
        faces=faces,
        searched=searched,
        expansion=expansion_of(found[first]),
        seconds=clock.seconds(),
        **version.says(live),
    )


async def _embedded(
    version: Version, seen: Looked, find: Callable[[list[np.ndarray]], Made] | None, clock: Clock
) -> tuple[list[np.ndarray], Made | None]:
    """(D,) float32 of each face; and what `find` made of them where there was one, and it could be called at once."""
    with clock.stage("embed"):
        if find is None or len(seen.faces) != 1:
            return list(await asyncio.gather(*(version.embed(face.jpeg) for face in seen.faces))), None
        embedding, done = await version.embed_and(seen.faces[0].jpeg, lambda one: find([one]))
    if done is None:
        return [embedding], None
    clock.move(done[1], to="search", was="embed")
    return [embedding], done[0]


def check_options(args: ServeArgs, version: Version, options: SearchOptions, with_photo: bool) -> None:
    """Raises: Refusal bad-parameter for what this service or this gallery cannot do."""
    if options.k > args.max_k:
        raise _bad(f"k: {options.k} is above {args.max_k}, the limit of this server.")
    if (options.expand or 0) > args.max_expand:
        raise _bad(f"expand: {options.expand} is above {args.max_expand}, the limit of this server.")
    if options.num_queries != (0 if with_photo else 1):
        raise _bad("Give one of: a photo, image_id, image_ids, embedding, text.")
    if options.text is not None:
        _check_text(version, options)
    if options.box is not None and version.config.crop != "fit":
        detail = f"box: this service finds by itself what to search with (crop '{version.config.crop}'). Leave it out"
        raise refuse_photo("bad-parameter", detail)
    if options.face != "best" and not version.config.looks:
        raise _bad("face: this gallery is of whole photos, in which no face is looked for. Leave it out.")
    check_rerank(args, version, options, with_photo)
    if options.min_probability is not None and (version.calibration is None or version.calibration.curve is None):
        raise _bad("min_probability: the scores of this model were never calibrated. Use min_score.")
    if version.calibration is not None:
        try:
            version.calibration.rate(options.far)
        except ValueError as error:
            raise _bad(f"far: {error}") from error


def _check_text(version: Version, options: SearchOptions) -> None:
    """Raises: Refusal bad-parameter for words where this model takes none, or for what is only measured of photos."""
    if version.text is None:
        raise _bad("text: this model describes photos and no words. Search with a photo, or serve a model of both.")
    if options.min_probability is not None:
        raise _bad("min_probability: what the scores of words mean was not measured. Use min_score.")


async def _words(version: Version, text: str) -> np.ndarray:
    """(D,) float32, unit norm. Raises: Refusal bad-parameter for a text that the model cannot take."""
    assert version.text is not None
    try:
        ids = version.text.tokens.ids(text)
    except ValueError as error:
        raise _bad(f"text: {error}.") from error
    return await version.embed_words(ids)


def _offer(
    service: Service, version: Version, options: SearchOptions, photo: bytes, seen: Looked, asked: list[np.ndarray]
) -> None:
    """A candidate may be asked too what one face, or one whole photo, is like."""
    if service.candidate is not None and options.box is None and len(asked) == 1:
        service.candidate.offer(version, photo, seen.faces[0].jpeg, asked[0])


async def look(service: Service, version: Version, options: SearchOptions, photo: bytes, clock: Clock) -> Looked:
    """What is seen in the photo. Raises: Refusal with the reason why it cannot be used."""
    with clock.stage("prepare"):
        seen = await service.photos.look(photo, version.look(options.face, options.box))
    if isinstance(seen, Unusable):
        raise refuse_photo(seen.reason, seen.detail)
    return seen


def search(
    args: ServeArgs,
    version: Version,
    options: SearchOptions,
    embedding: np.ndarray,
    allowed: Filter | None = None,
) -> Found:
    """The neighbours of one embedding, (D,) float32, expanded if the options or the settings say so.

    Args: allowed: which images may answer, and be taken on.
    """
    gallery, asked = version.gallery, embedding[None]
    num = args.expand if options.expand is None else options.expand
    expansion, near = None, None
    if num:
        if gallery.vectors == "none":
            raise refuse_photo("bad-parameter", f"expand: {gallery.why_no_vectors()}")
        near = gallery.search(asked, num, allowed)[0]
        alpha = args.alpha if options.alpha is None else options.alpha
        vectors = gallery.vectors_of([hit.image_id for hit in near])[None]
        asked = expand(asked, vectors, np.array([[hit.score for hit in near]]), alpha)
        expansion = ExpansionConfig(num=len(near), alpha=alpha)
    hits = gallery.search(asked, max(options.k, options.rerank or 0), allowed)[0]
    first = (hits if near is None else near)[:1]
    kept = [hit for hit in hits if options.min_score is None or hit.score >= options.min_score]
    return Found(kept, first[0].score if first else None, expansion)


def _embedding_of(version: Version, options: SearchOptions) -> np.ndarray:
    """(D,) float32, unit norm: of one image of the gallery, of several with their weights, or as it was sent."""
    gallery = version.gallery
    if options.embedding is not None:
        total = np.array(options.embedding, dtype=np.float64)
        if len(total) != gallery.dim:
            raise _bad(f"embedding has {len(total)} numbers, this model's have {gallery.dim}.")
    else:
        weighted = [(one.image_id, one.weight) for one in options.image_ids or ()]
        weighted = weighted or [(options.image_id or "", 1.0)]
        try:
            vectors = gallery.vectors_of([image_id for image_id, _ in weighted])
        except KeyError as error:
            raise Refusal("not-found", f"There is no image {error.args[0]!r} in the gallery.") from error
        except ValueError as error:
            raise _bad(f"image_id: {gallery.why_no_vectors()}.") from error
        total = np.array([weight for _, weight in weighted]) @ vectors.astype(np.float64)
    norm = float(np.linalg.norm(total))
    if not norm > 1e-9:
        raise _bad("What to search with has no direction: its parts cancel out.")
    return (total / norm).astype(np.float32)


def _best_place(seen: Looked | None) -> int:
    if seen is None or seen.best is None:
        return 0
    return next((place for place, face in enumerate(seen.faces) if face.number == seen.best), 0)


def _bad(message: str) -> Refusal:
    return Refusal("bad-parameter", message)
