"""Machines that are raylets of this host, as `tests.support.growing` has Ray's autoscaler start them."""

from __future__ import annotations

import json
import os
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Machines(FakeMultiNodeProvider):
    """Ray's own, which takes memory for a resource that somebody made up, and so starts no machine that declares it."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: Any, resources: dict[str, float], labels: Any
    ) -> None:
        others = dict(resources)
        os.environ["RAY_OVERRIDE_RESOURCES"] = json.dumps({"memory": others.pop("memory")})
        try:
            super()._create_node_with_resources_and_labels(node_config, tags, count, others, labels)
        finally:
            del os.environ["RAY_OVERRIDE_RESOURCES"]
