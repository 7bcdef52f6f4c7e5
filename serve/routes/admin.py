"""POST /v1/admin/reload and snapshot: which version answers, changed while it runs; what is served, kept as it is."""

import asyncio

from fastapi import FastAPI

from retrieval.artifacts.folder import Folder
from retrieval.live.snapshots.snapshot import take
from retrieval.live.store import ReadOnly
from serve.edge import Refusal
from serve.routes.search import ERRORS
from serve.schemas import ReloadAnswer, ReloadRequest, SnapshotAnswer
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

    @api.post("/v1/admin/snapshot", responses=ERRORS, tags=["admin"])
    async def snapshot() -> SnapshotAnswer:
        """Keep which version is current, and every change to the gallery, as they are now, in the workspace.

        `python -m ray_jobs.snapshot` checks it and puts it back.
        """
        try:
            made = await asyncio.to_thread(take, Folder.of(service.args.workspace))
        except ReadOnly as error:
            raise Refusal("read-only", str(error)) from error
        except ValueError as error:
            raise Refusal("conflict", str(error)) from error
        return SnapshotAnswer(name=made.name, path=made.path, files=made.files, bytes=made.num_bytes)
