"""What KubeRay's manifests may hold, as far as ours use it: every key that is not named here is refused.

The operator's own schemas are megabytes of a repository that a test must not fetch, and of its many ways we use few.
So this is their part that ours need, as known of KubeRay's ray.io/v1; it was not held against the operator's schemas,
and no cluster has taken these files yet. A new key is a line here.
"""

from __future__ import annotations

from typing import Any

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_YES: dict[str, Any] = {"type": "boolean"}


def of(required: str = "", /, **keys: Any) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {"type": "object", "properties": keys, "required": required.split(), "additionalProperties": False}


def all_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}  # numbers among them are quoted
_QUANTITY: dict[str, Any] = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$"}
_AMOUNTS: dict[str, Any] = of("cpu memory", cpu=_QUANTITY, memory=_QUANTITY, **{"nvidia.com/gpu": _QUANTITY})
_META = of("name", name={"type": "string", "pattern": "^[a-z][a-z0-9-]{0,40}$"})
_CONTAINER = of(
    "name image resources securityContext",
    name=_TEXT,
    image={"type": "string", "pattern": r"^[^\s:]+:(?!latest$)\S+$"},  # of a named version
    ports=all_of(of("name containerPort", name=_TEXT, containerPort=_COUNT)),
    envFrom=all_of(of("configMapRef", configMapRef=of("name", name=_TEXT))),
    resources=of("requests limits", requests=_AMOUNTS, limits=_AMOUNTS),
    securityContext=of(
        "allowPrivilegeEscalation capabilities",
        allowPrivilegeEscalation={"const": False},
        capabilities=of("drop", drop={"const": ["ALL"]}),
    ),
    volumeMounts=all_of(of("name mountPath", name=_TEXT, mountPath=_TEXT)),
)
_POD = of(
    "spec",
    spec=of(
        "containers securityContext",
        serviceAccountName=_TEXT,
        automountServiceAccountToken=_YES,
        securityContext=of("runAsNonRoot runAsUser", runAsNonRoot={"const": True}, runAsUser=_COUNT, fsGroup=_COUNT),
        tolerations=all_of(of("key operator effect", key=_TEXT, operator=_TEXT, effect=_TEXT)),
        containers=all_of(_CONTAINER),
        volumes=all_of(of("name emptyDir", name=_TEXT, emptyDir=of(sizeLimit=_QUANTITY))),
    ),
)
_CLUSTER = of(
    "rayVersion authOptions headGroupSpec workerGroupSpecs",
    rayVersion=_TEXT,
    authOptions=of("mode", mode={"const": "token"}),
    enableInTreeAutoscaling=_YES,
    autoscalerOptions=of(upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}, idleTimeoutSeconds=_COUNT),
    gcsFaultToleranceOptions=of(
        "redisAddress redisPassword",
        redisAddress=_TEXT,
        redisPassword=of("valueFrom", valueFrom=of("secretKeyRef", secretKeyRef=of("name key", name=_TEXT, key=_TEXT))),
    ),
    headGroupSpec=of("rayStartParams template", rayStartParams=_TEXTS, template=_POD),
    workerGroupSpecs=all_of(
        of(
            "groupName replicas minReplicas maxReplicas rayStartParams template",
            groupName=_TEXT,
            replicas=_COUNT,
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            rayStartParams=_TEXTS,
            template=_POD,
        )
    ),
)
_JOB = of(
    "entrypoint rayClusterSpec",
    entrypoint=_TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode"]},
    backoffLimit=_COUNT,
    shutdownAfterJobFinishes=_YES,
    ttlSecondsAfterFinished=_COUNT,
    rayClusterSpec=_CLUSTER,
)
_SERVICE = of(
    "serveConfigV2 rayClusterConfig",
    serviceUnhealthySecondThreshold=_COUNT,
    deploymentUnhealthySecondThreshold=_COUNT,
    serveConfigV2=_TEXT,
    rayClusterConfig=_CLUSTER,
)


def _kind(api: str, kind: str, **more: Any) -> dict[str, Any]:
    named = {"apiVersion": {"const": api}, "kind": {"const": kind}, "metadata": _META}
    return of(f"apiVersion kind metadata {' '.join(more)}", **named, **more)


KINDS = {
    "ConfigMap": _kind("v1", "ConfigMap", data=_TEXTS),
    "RayCluster": _kind("ray.io/v1", "RayCluster", spec=_CLUSTER),
    "RayJob": _kind("ray.io/v1", "RayJob", spec=_JOB),
    "RayService": _kind("ray.io/v1", "RayService", spec=_SERVICE),
}
"""A JSON schema for each kind of document."""
