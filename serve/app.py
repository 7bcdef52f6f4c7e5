"""The query service on Ray Serve: photo in, ranked gallery images out.

    python -m serve --workspace W                       # then open http://127.0.0.1:8000
    serve run serve.app:build_app workspace=W           # the same behind Ray Serve's own proxy

One deployment, `Search`: a replica takes the request, finds the face, embeds and searches. More load is answered by
more replicas. An index that is too large for each of them is held in parts by others (`index_parts`), whom they ask.
"""

# No `from __future__ import annotations`: Ray Serve reads the annotations as types.
import logging
from typing import Any

import ray
from ray import serve

from retrieval.artifacts.index import shards_of
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.published import Pair
from serve.parts.part import Part
from serve.replica import Search
from serve.settings import ServeArgs

logger = logging.getLogger(__name__)


def build_app(args: ServeArgs) -> serve.Application:
    """The deployment, sized and bound. Reads manifests only; what is heavy is loaded by the replicas.

    Raises: ValueError if the workspace holds no matching model and index.
    """
    pair = Pair.open(args.workspace)
    logger.info("serving model %s with index %s", pair.model_fingerprint[:12], pair.index_fingerprint[:12])
    parts = _parts_of(args, pair) if args.index_parts > 1 else []
    search = _deployment(
        serve.ingress()(Search),
        ray_actor_options={"num_cpus": args.replica_cpus, "num_gpus": _gpus(args)},
        autoscaling_config={
            "min_replicas": args.min_replicas,
            "max_replicas": args.max_replicas,
            "target_ongoing_requests": max(1, args.max_batch // 2),
        },
        # More than max_queue come in: slow senders, thumbnails, and those whom we tell in JSON that the queue is full.
        max_ongoing_requests=args.max_uploads + args.max_queue + 256,
        max_queued_requests=256,
        backpressure_config={"status_code": 503, "retry_after_s": args.retry_after_s},
    )
    return search.bind(args, *parts)


def _parts_of(args: ServeArgs, pair: Pair) -> list[Any]:
    """A deployment for each part of the index: one replica, on a node that has room for its shards.

    Raises: ValueError if there are fewer shards than parts.
    """
    manifest, sizes = read_manifest(pair.index), pair.index.list()
    made = []
    for number in range(args.index_parts):
        room = sum(sizes[name] for name in shards_of(manifest, number, args.index_parts))
        part = _deployment(
            Part,
            name=f"Part{number + 1}",
            num_replicas=1,
            ray_actor_options={"num_cpus": args.replica_cpus, "num_gpus": 0, "memory": room},
            # Replicas let in no more than they can ask: here nobody is turned away.
            max_ongoing_requests=10_000,
        )
        made.append(part.bind(args, number))
    return made


def _deployment(kind: Any, **options: Any) -> Any:
    """Replacements start before the old replicas stop, and one that cannot start is not tried 20 times."""
    made: Any = serve.deployment(kind)
    # A line for every request costs as much as a search, and addresses hold names of images. Ray makes it before it
    # asks whether anybody wants it, unless the level says so.
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    return made.options(max_surge_percent=100, max_constructor_retry_count=3, logging_config=quiet, **options)


def _gpus(args: ServeArgs) -> float:
    """GPUs a replica reserves. `serve run` calls `build_app` before it connects to Ray: then this machine's count."""
    if args.replica_gpus is not None:
        return args.replica_gpus
    if ray.is_initialized():
        found = ray.cluster_resources().get("GPU", 0)
    else:
        import torch

        found = torch.cuda.device_count()
    return 1.0 if found >= 1 and args.device != "cpu" else 0.0
