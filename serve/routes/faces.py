"""POST /v1/faces: what is found in a photo, and which of it a search would take."""

from fastapi import FastAPI, Request

from serve.edge import Refusal, refuse_photo
from serve.engine.version import Version
from serve.engine.wording import photo_of
from serve.photos.messages import Looked, PoorFace, PreparedFace, Unusable
from serve.routes.bodies import FILE, photo_body
from serve.routes.search import ERRORS, photo_and_options
from serve.schemas import FacesAnswer, FoundFace, Quality
from serve.service import Service

_BODY = photo_body({"photo": FILE})


def add(api: FastAPI, service: Service) -> None:
    """Adds the route."""

    @api.post("/v1/faces", responses=ERRORS, openapi_extra={"requestBody": _BODY}, tags=["faces"])
    async def faces(request: Request) -> FacesAnswer:
        """The faces of a photo, the largest first, with what is known of each."""
        service.check_room()
        photo, options = await photo_and_options(service, request)
        if photo is None or options:
            raise Refusal("bad-request", "Send a photo, and nothing else: there is nothing to choose.")
        version = service.versions.current
        if not version.config.looks:
            raise Refusal("bad-parameter", "This gallery is of whole photos, in which no face is looked for.")
        async with service.place():
            seen = await service.photos.look(photo, version.look("all"))
        if isinstance(seen, Unusable):
            raise refuse_photo(seen.reason, seen.detail)
        return _answer(version, seen)


def _answer(version: Version, seen: Looked) -> FacesAnswer:
    found = [*(_usable(seen, face) for face in seen.faces), *(_poor(face) for face in seen.refused)]
    return FacesAnswer(
        width=seen.width,
        height=seen.height,
        faces=sorted(found, key=lambda face: face.face),
        model=version.pair.model_fingerprint,
        version=version.name,
    )


def _usable(seen: Looked, face: PreparedFace) -> FoundFace:
    told = photo_of(seen, face)
    return FoundFace(face=told.face or 0, box=told.box, points=told.points, quality=told.quality, usable=True)


def _poor(face: PoorFace) -> FoundFace:
    x1, y1, x2, y2 = face.box
    points = None if face.points is None else list(face.points)
    quality = Quality(confidence=face.confidence, size=min(x2 - x1, y2 - y1))
    return FoundFace(face=face.number, box=face.box, points=points, quality=quality, usable=False, reason=face.reason)
