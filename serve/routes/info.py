"""GET /v1/info, /livez, /readyz and /metrics: what is loaded, whether it is well, what is counted."""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from retrieval.artifacts.calibration import Calibration
from serve.engine.verifying import usual_rerank
from serve.engine.version import Version
from serve.routes.search import ERRORS
from serve.schemas import (
    AllLimits,
    CalibrationInfo,
    CandidateInfo,
    Defaults,
    Features,
    Health,
    KnownRate,
    Limits,
    LoadedModel,
    Ready,
    RefusedVersion,
    ServiceInfo,
)
from serve.service import Service
from serve.settings import ServeArgs

_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}, "description": "Prometheus's own form."}}


def add(api: FastAPI, service: Service) -> None:
    """Adds the routes."""

    @api.get("/v1/info", responses=ERRORS, tags=["info"])
    async def info() -> ServiceInfo:
        """What is loaded, what can be asked for, what is refused."""
        version = service.versions.current
        return ServiceInfo(
            model=loaded_model(version),
            index=version.describe_index(),
            index_parts=service.args.index_parts,
            collection=version.pair.collection_fingerprint,
            version=version.name,
            live=version.gallery.refresh(),
            calibration=_calibration(version.calibration),
            features=_features(service.args, version),
            limits=AllLimits(
                **limits_of(service.args).model_dump(),
                max_batch_photos=service.args.max_batch_photos,
                max_rerank=service.args.max_rerank if version.config.crop == "fit" else 0,
            ),
            defaults=Defaults(
                expand=service.args.expand, alpha=service.args.alpha, rerank=usual_rerank(service.args, version)
            ),
            labels=version.gallery.num_identities,
            started=service.started,
            replica=service.replica,
            refused=_refused(service),
            candidate=_candidate(service),
        )

    @api.get("/livez", tags=["info"])
    async def livez() -> Health:
        """The process answers."""
        return Health()

    @api.get("/readyz", responses={200: {"model": Ready}, 503: {"model": Ready}}, tags=["info"])
    async def readyz() -> Response:
        """Every part was asked, at most a second ago, to do a little of its work."""
        ready = await service.ready()
        return JSONResponse(ready.model_dump(), status_code=200 if ready.status == "ok" else 503)

    @api.get("/metrics", response_class=Response, responses=_TEXT, tags=["info"])
    async def metrics() -> Response:
        """For Prometheus; of the replica that answers, which every series names. Ray's own endpoint has them all."""
        return Response(service.metrics.text(), media_type=service.metrics.content_type)


def limits_of(args: ServeArgs) -> Limits:
    return Limits(**{name: getattr(args, name) for name in Limits.model_fields})


def loaded_model(version: Version) -> LoadedModel:
    """What GET /v1/info says of the model."""
    told, embedder = version.describe(), version.embedder
    return LoadedModel(
        fingerprint=told.fingerprint,
        name=embedder.spec.config.backbone,
        dim=told.embedding_dim,
        engine=embedder.engine,
        format=embedder.format,
        licence=embedder.spec.network and embedder.spec.network.licence,
        device=told.device,
        crop=told.crop,
    )


def _features(args: ServeArgs, version: Version) -> Features:
    return Features(
        rerank=version.config.crop == "fit" and args.max_rerank > 0,
        faces=version.config.looks,
        box=version.config.crop == "fit",
        expand=args.max_expand > 0 and version.gallery.vectors != "none",
        add=version.gallery.store is not None,
        people=version.pair.people is not None,
        attributes=list(version.gallery.attribute_names),
        text=version.text is not None,
    )


def _refused(service: Service) -> RefusedVersion | None:
    one = service.watch.refused
    return None if one is None else RefusedVersion(version=one.version, why=one.why, at=one.at)


def _candidate(service: Service) -> CandidateInfo | None:
    one = service.candidate
    return None if one is None else CandidateInfo(version=one.name, share=service.args.candidate_share, why=one.why_not)


def _calibration(found: Calibration | None) -> CalibrationInfo | None:
    if found is None:
        return None
    rates = [
        KnownRate(far=rate.far, threshold=rate.threshold, true_accept=rate.true_accept, why=rate.why)
        for rate in found.rates
    ]
    return CalibrationInfo(rates=rates, people=found.people, why=found.why)
