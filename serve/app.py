"""The query service on Ray Serve: photo in, ranked gallery images out.

    serve run serve.app:build_app workspace=W           # then open http://127.0.0.1:8000

    Search (HTTP, page, thumbnails) -> Embedder (find the face, embed; batched, autoscaled, GPU if any)
                                    -> IndexShard (all shards of the index, until memory forces a split)

A hop between replicas costs as much as a small search, so there are two of them and no more.
"""

# No `from __future__ import annotations`: Ray Serve reads the annotations as types.
import logging
from typing import Any

import ray
from ray import serve

from retrieval.artifacts.published import Pair
from serve.embedder import Embedder
from serve.index_shard import IndexShard
from serve.ingress import Search
from serve.schemas import ServeArgs

logger = logging.getLogger(__name__)


def build_app(args: ServeArgs) -> serve.Application:
    """The three deployments, sized and bound. Reads manifests only; what is heavy is loaded by the replicas.

    Raises: ValueError if the workspace holds no matching model and index.
    """
    pair = Pair.open(args.workspace)
    logger.info("serving model %s with index %s", pair.model_fingerprint[:12], pair.index_fingerprint[:12])
    embed = _deployment(
        Embedder,
        ray_actor_options={"num_cpus": args.embedder_cpus, "num_gpus": _gpus(args)},
        autoscaling_config={
            "min_replicas": args.min_embedders,
            "max_replicas": args.max_embedders,
            "target_ongoing_requests": max(1, args.max_batch // 2),
        },
        max_ongoing_requests=2 * args.max_batch,  # one batch in the network, one being decoded
        max_queued_requests=args.max_queue,
    )
    index = _deployment(
        IndexShard,
        ray_actor_options={"num_cpus": 0.25},
        num_replicas=args.index_replicas,
        max_ongoing_requests=32,
        max_queued_requests=args.max_queue,
    )
    search = _deployment(
        serve.ingress()(Search),
        ray_actor_options={"num_cpus": 0.25},
        # More than max_queue come in: thumbnails, and those whom we tell in JSON that the queue is full.
        max_ongoing_requests=args.max_queue + 128,
        max_queued_requests=256,
        backpressure_config={"status_code": 503, "retry_after_s": args.retry_after_s},
    )
    return search.bind(args, pair, embed.bind(args, pair), index.bind(pair, args.expand > 0))


def _deployment(kind: Any, **options: Any) -> Any:
    """Replacements start before the old replicas stop, and one that cannot start is not tried 20 times."""
    made: Any = serve.deployment(kind)
    return made.options(max_surge_percent=100, max_constructor_retry_count=3, **options)


def _gpus(args: ServeArgs) -> float:
    """GPUs an Embedder reserves. `serve run` calls `build_app` before it connects to Ray: then this machine's count."""
    if args.embedder_gpus is not None:
        return args.embedder_gpus
    if ray.is_initialized():
        found = ray.cluster_resources().get("GPU", 0)
    else:
        import torch

        found = torch.cuda.device_count()
    return 1.0 if found >= 1 and args.device != "cpu" else 0.0
