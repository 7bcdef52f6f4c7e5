"""cluster.yaml, and the file for one's own machines in the docs, pass the checks of `ray up` itself."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cloud() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def commands(config: dict[str, Any], which: str) -> str:
    return "\n".join(config[which])


def test_ray_accepts_it_and_keeps_our_choices(cloud: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(cloud))
    validate_config(prepared)
    assert set(prepared["available_node_types"]) == {"head", "gpu", "cpu"}, "a default node type slipped in"
    assert prepared["max_workers"] == 12


def test_ray_refuses_a_key_it_does_not_know(cloud: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**copy.deepcopy(cloud), "max_worker": 3}))


def test_the_head_takes_no_work_and_workers_scale_from_zero(cloud: dict[str, Any]) -> None:
    types = cloud["available_node_types"]
    assert types[cloud["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    workers = [node for name, node in types.items() if name != cloud["head_node_type"]]
    assert all(node["min_workers"] == 0 < node["max_workers"] for node in workers)
    assert {node["resources"]["GPU"] > 0 for node in workers} == {True, False}, "both GPU and CPU workers"
    assert sum(node["max_workers"] for node in workers) == cloud["max_workers"]


def test_every_node_asks_for_the_token_and_nothing_listens_outside(cloud: dict[str, Any]) -> None:
    for which in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in commands(cloud, which)
    assert "~/.ray/auth_token" in cloud["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in commands(cloud, "head_start_ray_commands")


def test_every_node_installs_the_lock_by_hash(cloud: dict[str, Any]) -> None:
    assert "--require-hashes ~/requirements.lock" in commands(cloud, "setup_commands")
    assert (ROOT / cloud["file_mounts"]["~/requirements.lock"]).is_file()


def test_the_file_for_own_machines_in_the_docs_is_accepted() -> None:
    page = (ROOT / "docs/how-to/run/cluster.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 1
    config = yaml.safe_load(blocks[0])
    assert config["provider"]["type"] == "local"
    validate_config(prepare_config(config))
