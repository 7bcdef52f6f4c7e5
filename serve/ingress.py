"""The door of the service: takes requests in or turns them away, asks the embedder and the index, and answers.

It loads neither the model nor the index, and none of their libraries.
"""

# No `from __future__ import annotations`: Ray Serve and FastAPI read the annotations as types.
import asyncio
import base64
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from retrieval.artifacts.published import Pair
from retrieval.images.settings import Box
from retrieval.search.settings import ExpansionConfig
from serve import edge
from serve.edge import Refusal
from serve.gallery import Gallery
from serve.messages import Embedded, Found, Unusable
from serve.schemas import (
    MAX_ALPHA,
    Answer,
    Defaults,
    ErrorBody,
    Expansion,
    Health,
    Info,
    Limits,
    QueryPhoto,
    Result,
    Seconds,
    ServeArgs,
)


class Search:
    """The deployment that HTTP reaches."""

    def __init__(self, args: ServeArgs, pair: Pair, embedder: DeploymentHandle, index: DeploymentHandle) -> None:
        self._args = args
        self._pair = pair
        self._embedder = embedder
        self._index = index
        self._gallery = Gallery(pair.collection, pair.index)
        self._num_searching = 0
        self._info: Info | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve asks for the routes once this replica's constructor is done."""
        api = edge.new_api()
        edge.add_page(api)
        errors: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in set(edge.STATUS.values())}
        args, max_k = self._args, self._args.max_k

        @api.post("/search", responses=errors)
        async def search(
            request: Request,
            k: Annotated[int, Query(ge=1, le=max_k)] = min(10, max_k),
            crop: bool = False,
            expand: Annotated[int, Query(ge=0, le=args.max_expand)] = args.expand,
            alpha: Annotated[float, Query(ge=0, le=MAX_ALPHA, allow_inf_nan=False)] = args.alpha,
            box: Annotated[str | None, Query(description="x1,y1,x2,y2 of the upright photo, pixels")] = None,
        ) -> Answer:
            expansion = ExpansionConfig(num=expand, alpha=alpha) if expand else None
            return await self.search(request, k, crop, expansion, None if box is None else edge.parse_box(box))

        @api.get("/gallery/{row}", response_class=Response, responses={404: {"model": ErrorBody}})
        async def gallery(request: Request, row: str) -> Response:
            return await self.thumbnail(row, request.headers.get("if-none-match"))

        @api.get("/info")
        async def info() -> Info:
            return await self.info()

        @api.get("/health")
        async def health() -> Health:
            await self.info()
            return Health()

        return api

    async def search(
        self, request: Request, k: int, with_crop: bool, expansion: ExpansionConfig | None, box: Box | None
    ) -> Answer:
        """Raises: Refusal, always with a reason that says whose fault it is."""
        started = time.perf_counter()
        edge.check_media_type(request.headers.get("content-type"))
        with self._place_in_queue():
            try:
                async with asyncio.timeout(self._args.timeout_s):
                    photo = await edge.read_body(request, self._args.max_body_bytes)
                    seen: Embedded = await self._usable(self._embedder.embed, photo, box)
                    found: Found = await self._usable(self._index.search, seen.embedding, k, seen.model, expansion)
            except TimeoutError as error:
                raise Refusal("timeout", f"No answer within {self._args.timeout_s:g} s.") from error
        prefix = request.scope.get("root_path", "").rstrip("/")
        return _answer(seen, found, prefix, with_crop, time.perf_counter() - started)

    @contextmanager
    def _place_in_queue(self) -> Iterator[None]:
        """Counted before the body is read, so that what a crowd can make this process hold is bounded."""
        if self._num_searching >= self._args.max_queue:
            raise edge.busy(self._args.retry_after_s)
        self._num_searching += 1
        try:
            yield
        finally:
            self._num_searching -= 1

    async def _usable(self, method: DeploymentHandle, *args: Any) -> Any:
        answer = await self._ask(method, *args)
        if isinstance(answer, Unusable):
            raise edge.refuse_photo(answer.reason, answer.detail)
        return answer

    async def _ask(self, method: DeploymentHandle, *args: Any) -> Any:
        response = method.remote(*args)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()  # out of time, or the client left: nobody wants this work
            raise
        except BackPressureError as error:
            raise edge.busy(self._args.retry_after_s) from error
        except (DeploymentUnavailableError, RayActorError) as error:
            again = {"Retry-After": str(self._args.retry_after_s)}
            raise Refusal("unavailable", "A part of the service is starting or has failed.", again) from error

    async def thumbnail(self, row: str, etag_seen: str | None) -> Response:
        """The stored crop of one row of the index."""
        # ASCII digits only: int() also takes signs, spaces and other scripts' digits.
        if not re.fullmatch(r"[0-9]{1,12}", row) or int(row) >= len(self._gallery):
            raise Refusal("not-found", f"There is no such image: rows are 0 to {len(self._gallery) - 1}.")
        # A row means another image after the index is rebuilt, so browsers must ask; the answer is then mostly 304.
        headers = {"ETag": f'"{self._pair.index_fingerprint[:16]}-{int(row)}"', "Cache-Control": "private, no-cache"}
        if etag_seen == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        jpeg = await asyncio.to_thread(self._gallery.jpeg, int(row))
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    async def info(self) -> Info:
        """What is loaded, asked of the parts themselves, once they are up."""
        if self._info is None:
            try:
                async with asyncio.timeout(5):
                    model, index = await asyncio.gather(
                        self._ask(self._embedder.describe), self._ask(self._index.describe)
                    )
            except TimeoutError as error:
                again = {"Retry-After": str(self._args.retry_after_s)}
                raise Refusal("unavailable", "The service is starting.", again) from error
            limits = Limits(**{name: getattr(self._args, name) for name in Limits.model_fields})
            self._info = Info(
                model=model,
                index=index,
                collection=self._pair.collection_fingerprint,
                limits=limits,
                defaults=Defaults(expand=self._args.expand, alpha=self._args.alpha),
            )
        return self._info


def _answer(seen: Embedded, found: Found, prefix: str, with_crop: bool, seconds: float) -> Answer:
    crop = f"data:image/jpeg;base64,{base64.b64encode(seen.crop).decode()}" if with_crop else None
    neighbours = zip(found.rows, found.scores, found.image_ids, found.labels, strict=True)
    return Answer(
        query=QueryPhoto(width=seen.width, height=seen.height, box=seen.box, crop=crop),
        results=[
            Result(rank=rank, image_id=image_id, score=score, label=label, thumbnail=f"{prefix}/gallery/{row}")
            for rank, (row, score, image_id, label) in enumerate(neighbours, start=1)
        ],
        expansion=found.expansion and Expansion(num=found.expansion.num, alpha=found.expansion.alpha),
        model=seen.model,
        index=found.index,
        seconds=Seconds(total=seconds, prepare=seen.prepare_seconds, embed=seen.embed_seconds, search=found.seconds),
    )
