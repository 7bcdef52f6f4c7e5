"""What a search was told, and its answer: look, embed, search, decide. One version answers the whole of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval.artifacts.calibration import Judgement, judge
from retrieval.live.entries import Hit
from retrieval.live.filters import Filter
from retrieval.search.expansion import expand
from retrieval.search.settings import ExpansionConfig
from serve.edge import Refusal, refuse_photo
from serve.engine.clock import Clock
from serve.engine.filtering import filter_of, thumbnail_of
from serve.engine.version import Version
from serve.photos.messages import Looked, PreparedFace, Unusable
from serve.schemas import (
    Decision,
    ErrorDetail,
    Expansion,
    FaceAnswer,
    Quality,
    QueryPhoto,
    Result,
    SearchAnswer,
    SearchOptions,
)
from serve.settings import ServeArgs

if TYPE_CHECKING:
    from serve.service import Service

_DECIDED = {"same": "match", "different": "nobody", "cannot tell": "cannot tell"}


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one embedding.

    hits: best first, those kept that the options allow. nearest: the best score of the query as it is, not expanded;
    None where nothing could answer. expansion: how it was expanded, its num being the neighbours that there were.
    """

    hits: list[Hit]
    nearest: float | None
    expansion: ExpansionConfig | None


async def answer(
    service: Service, options: SearchOptions, photo: bytes | None, clock: Clock, prefix: str = ""
) -> SearchAnswer:
    """The answer to a search.

    Args: photo: its bytes; None where the options say what to search with. prefix: of the service's own addresses.

    Raises: Refusal, always with a reason that says whose fault it is.
    """
    version = service.versions.current
    check_options(service.args, version, options, photo is not None)
    if photo is None:
        with clock.stage("search"):
            query = await version.in_thread(lambda: _embedding_of(version, options))
        asked, seen = [query], None
    else:
        seen = await look(service, version, options, photo, clock)
        with clock.stage("embed"):
            asked = list(await asyncio.gather(*(version.embed(face.jpeg) for face in seen.faces)))
    allowed = filter_of(options.filter)
    with clock.stage("search"):
        live, searched, found = await version.in_thread(
            lambda: (
                version.gallery.refresh(),
                version.gallery.num_allowed(allowed),
                [search(service.args, version, options, one, allowed) for one in asked],
            )
        )
    made = _Answer(version, options, prefix)
    first = _best_place(seen)
    faces = made.faces(seen, found) if seen is not None and options.face == "all" else None
    if not found:  # face=all, and there is none, or every one is too poor
        poor = seen.refused[0] if seen is not None and seen.refused else None
        raise refuse_photo("no-face" if poor is None else poor.reason, "" if poor is None else poor.detail)
    service.metrics.took(clock.spent)
    if photo is not None and seen is not None:
        _offer(service, version, options, photo, seen, asked)
    return SearchAnswer(
        query=None if seen is None else photo_of(seen, seen.faces[first], options.crop),
        results=made.results(found[first]),
        decision=made.decision(found[first]),
        faces=faces,
        searched=searched,
        expansion=_expansion(found[first]),
        model=version.pair.model_fingerprint,
        index=version.pair.index_fingerprint,
        version=version.name,
        live=live,
        seconds=clock.seconds(),
    )


def check_options(args: ServeArgs, version: Version, options: SearchOptions, with_photo: bool) -> None:
    """Raises: Refusal bad-parameter for what this service or this gallery cannot do."""
    if options.k > args.max_k:
        raise _bad(f"k: {options.k} is above {args.max_k}, the limit of this server.")
    if (options.expand or 0) > args.max_expand:
        raise _bad(f"expand: {options.expand} is above {args.max_expand}, the limit of this server.")
    if options.num_queries != (0 if with_photo else 1):
        raise _bad("Give one of: a photo, image_id, image_ids, embedding.")
    if options.box is not None and version.config.crop != "fit":
        detail = f"box: this service finds by itself what to search with (crop '{version.config.crop}'). Leave it out"
        raise refuse_photo("bad-parameter", detail)
    if options.face != "best" and not version.config.looks:
        raise _bad("face: this gallery is of whole photos, in which no face is looked for. Leave it out.")
    if options.rerank:
        raise _bad("rerank: not with this gallery.")
    if options.min_probability is not None and (version.calibration is None or version.calibration.curve is None):
        raise _bad("min_probability: the scores of this model were never calibrated. Use min_score.")
    if version.calibration is not None:
        try:
            version.calibration.rate(options.far)
        except ValueError as error:
            raise _bad(f"far: {error}") from error


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
    hits = gallery.search(asked, options.k, allowed)[0]
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


def photo_of(seen: Looked, face: PreparedFace, with_crop: bool = False) -> QueryPhoto:
    """What was seen in a photo, in words: of one face, or of the whole."""
    crop = f"data:image/jpeg;base64,{base64.b64encode(face.jpeg).decode()}" if with_crop else None
    of = face.quality
    return QueryPhoto(
        width=seen.width,
        height=seen.height,
        box=face.box,
        crop=crop,
        face=face.number,
        points=None if face.points is None else list(face.points),
        quality=of and Quality(confidence=of.confidence, size=of.size, sharpness=of.sharpness, turn=of.turn),
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """Puts what was found into words."""

    version: Version
    options: SearchOptions
    prefix: str

    def results(self, found: Found) -> list[Result]:
        """With an expanded query no probabilities: what its scores mean was not measured."""
        calibration = None if found.expansion else self.version.calibration
        names, results = self.version.gallery.people.names, []
        for hit in found.hits:
            probability = None if calibration is None else calibration.probability(hit.score)
            if self.options.min_probability is not None and (probability or 0.0) < self.options.min_probability:
                continue
            results.append(
                Result(
                    rank=len(results) + 1,
                    image_id=hit.image_id,
                    score=hit.score,
                    probability=probability,
                    label=hit.label,
                    person=hit.person,
                    person_name=None if hit.person is None else names.get(hit.person),
                    split=hit.split,
                    added=hit.added,
                    photo=hit.photo,
                    face=hit.face,
                    thumbnail=thumbnail_of(hit.image_id, self.prefix),
                )
            )
        return results

    def decision(self, found: Found) -> Decision:
        """Of the nearest as the query was asked."""
        far = self.options.far
        if found.nearest is None:
            return Decision(answer="nobody", threshold=None, far=far, promised=False, why="the gallery is empty")
        told: Judgement = judge(found.nearest, far, self.version.calibration, self.version.known)
        return Decision(
            answer=_DECIDED[told.answer],  # type: ignore[arg-type]
            threshold=told.threshold,
            far=far,
            promised=told.promised,
            why=told.why,
        )

    def faces(self, seen: Looked, found: Sequence[Found]) -> list[FaceAnswer]:
        """Every face of the photo by its number, also those that are too poor to search with."""
        answers = {
            face.number or 0: FaceAnswer(
                query=photo_of(seen, face, self.options.crop),
                results=self.results(one),
                decision=self.decision(one),
            )
            for face, one in zip(seen.faces, found, strict=True)
        }
        for poor in seen.refused:
            why = refuse_photo(poor.reason, poor.detail)
            points = None if poor.points is None else list(poor.points)
            query = QueryPhoto(width=seen.width, height=seen.height, box=poor.box, face=poor.number, points=points)
            undecided = Decision(
                answer="cannot tell", threshold=None, far=self.options.far, promised=False, why=why.message
            )
            error = ErrorDetail(reason=why.reason, message=why.message)
            answers[poor.number] = FaceAnswer(query=query, results=[], decision=undecided, error=error)
        return [answers[number] for number in sorted(answers)]


def _best_place(seen: Looked | None) -> int:
    if seen is None or seen.best is None:
        return 0
    return next((place for place, face in enumerate(seen.faces) if face.number == seen.best), 0)


def _expansion(found: Found) -> Expansion | None:
    return found.expansion and Expansion(num=found.expansion.num, alpha=found.expansion.alpha)


def _bad(message: str) -> Refusal:
    return Refusal("bad-parameter", message)
