"""POST /v1/admin/reload: which version answers, changed while it runs."""

from fastapi import FastAPI

from serve.edge import Refusal
from serve.routes.search import ERRORS
from serve.schemas import ReloadAnswer, ReloadRequest
from serve.service import Service


def add(api: FastAPI, service: Service) -> None:
    """Adds the routes."""

    @api.post("/v1/admin/reload", responses=ERRORS, tags=["admin"])
    async def reload(wanted: ReloadRequest | None = None) -> ReloadAnswer:
        """Take up what is published now, or make a version that was published before the current one again.

        One that is unfit is refused with the reason, and what answered answers on. The other replicas follow by
        themselves, within `watch_s` and the time that loading takes.
        """
        try:
            swapped, why = await service.watch.reload(wanted.version if wanted is not None else None)
        except ValueError as error:
            raise Refusal("not-found", str(error)) from error
        with service.versions.holding() as version:
            return ReloadAnswer(version=version.name, swapped=swapped, why=why)
