"""What was found, put into the words of the API."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from retrieval.artifacts.calibration import Judgement, judge
from retrieval.live.entries import Hit
from retrieval.search.settings import ExpansionConfig
from serve.edge import refuse_photo
from serve.engine.filtering import thumbnail_of
from serve.engine.version import Version
from serve.photos.messages import Looked, PreparedFace
from serve.schemas import (
    Decision,
    ErrorDetail,
    Expansion,
    FaceAnswer,
    Quality,
    QueryPhoto,
    Result,
    SearchOptions,
)

if TYPE_CHECKING:  # it brings COLMAP, which only places need
    from retrieval.search.rerank import Evidence

_DECIDED = {"same": "match", "different": "nobody", "cannot tell": "cannot tell"}


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one embedding.

    hits: best first, those kept that the options allow. nearest: the best score of the query as it is, not expanded;
    None where nothing could answer. expansion: how it was expanded, its num being the neighbours that there were.
    evidence: image_id -> what fits one geometry with the query, of those that were verified.
    """

    hits: list[Hit]
    nearest: float | None
    expansion: ExpansionConfig | None
    evidence: Mapping[str, Evidence] = field(default_factory=dict)


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
class Wording:
    """Puts what was found into words."""

    version: Version
    options: SearchOptions
    prefix: str
    """What all addresses of the service begin with."""

    def results(self, found: Found) -> list[Result]:
        """With an expanded query, and with words, no probabilities: what such scores mean was not measured."""
        calibration = None if found.expansion or self.options.text is not None else self.version.calibration
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
                    **self._evidence(found.evidence.get(hit.image_id)),
                )
            )
        return results

    def _evidence(self, of: Evidence | None) -> dict[str, Any]:
        if of is None:
            return {}
        matches = of.matches.round(1).tolist() if self.options.evidence else None
        return {"inliers": of.num_inliers, "matches": matches}

    def decision(self, found: Found) -> Decision:
        """Of the nearest as the query was asked."""
        far = self.options.far
        if found.nearest is None:
            return Decision(
                answer="nobody", threshold=None, far=far, promised=False, why="there is no image that could answer"
            )
        if self.options.text is not None:
            why = "what a score of words means was not measured: the nearest come first, and any may be none of it"
            return Decision(answer="cannot tell", threshold=None, far=far, promised=False, why=why)
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


def expansion_of(found: Found) -> Expansion | None:
    return found.expansion and Expansion(num=found.expansion.num, alpha=found.expansion.alpha)
