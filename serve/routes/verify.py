"""POST /v1/verify: whether two photos show the same, at a stated false-accept rate, or that the scores do not tell."""

# No `from __future__ import annotations`: FastAPI reads the annotations as types.
import asyncio
from typing import Annotated

from fastapi import FastAPI, Query, Request

from retrieval.artifacts.calibration import judge
from serve.edge import MESSAGES, Refusal, refuse_photo
from serve.engine.version import Version
from serve.engine.wording import photo_of
from serve.photos.messages import Looked, Unusable
from serve.routes.bodies import FILE, checked_photo, form_of, read_form
from serve.routes.search import ERRORS
from serve.schemas import VerifyAnswer
from serve.service import Service

_NOT_TO_COMPARE_BY = {"too-small", "no-face", "face-too-small", "face-blurred", "face-turned"}
"""Photos that are fine as photos, of which nothing can be said. Others are refused."""
_PARTS = ("first", "second")


def add(api: FastAPI, service: Service) -> None:
    """Adds the route."""

    @api.post(
        "/v1/verify", responses=ERRORS, openapi_extra=form_of(dict.fromkeys(_PARTS, FILE), [*_PARTS]), tags=["faces"]
    )
    async def verify(
        request: Request,
        far: Annotated[float, Query(gt=0, lt=1, description="The false-accept rate: one that was looked at.")] = 1e-3,
    ) -> VerifyAnswer:
        """Whether two photos, `first` and `second` of a form, show the same."""
        service.check_room()
        limit = service.args.max_body_bytes
        parts = {part.name: part for part in await read_form(service.uploads, request, 2 * limit, max_parts=8)}
        if missing := [name for name in _PARTS if name not in parts]:
            raise Refusal("bad-request", f"The form has no part '{missing[0]}'; it needs 'first' and 'second'.")
        photos = [checked_photo(parts[name], limit) for name in _PARTS]
        async with service.place():
            return await _verify(service, service.versions.current, photos, far)


async def _verify(service: Service, version: Version, photos: list[bytes], far: float) -> VerifyAnswer:
    if version.calibration is not None:
        try:
            version.calibration.rate(far)
        except ValueError as error:
            raise Refusal("bad-parameter", f"far: {error}") from error
    seen = await asyncio.gather(*(service.photos.look(photo, version.look()) for photo in photos))
    first, second = (photo_of(one, one.faces[0]) if isinstance(one, Looked) else None for one in seen)
    about = {"far": far, "first": first, "second": second, "version": version.name}
    about["model"] = version.pair.model_fingerprint
    why = [_why_not(name, one) for name, one in zip(_PARTS, seen, strict=True) if isinstance(one, Unusable)]
    if why:
        return VerifyAnswer(answer="cannot tell", why=" ".join(why), promised=False, **about)
    crops = [one.faces[0].jpeg for one in seen if isinstance(one, Looked)]
    one, other = await asyncio.gather(*(version.embed(crop) for crop in crops))
    score = float(one @ other)
    told = judge(score, far, version.calibration, version.known)
    return VerifyAnswer(
        answer=told.answer,
        why=told.why,
        score=score,
        probability=told.probability,
        threshold=told.threshold,
        promised=told.promised,
        **about,
    )


def _why_not(name: str, photo: Unusable) -> str:
    """Raises: Refusal for what is no photo at all."""
    if photo.reason in _NOT_TO_COMPARE_BY:
        return f"The {name} photo: {MESSAGES[photo.reason]}"
    refusal = refuse_photo(photo.reason, photo.detail)
    raise Refusal(refusal.reason, f"The {name} photo: {refusal.message}")
