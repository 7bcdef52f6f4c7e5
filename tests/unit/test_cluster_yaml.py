"""cluster.yaml, and the file for one's own machines in the docs, pass the checks of `ray up` itself."""

from __future__ import annotations

import copy
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler.sdk import fillout_defaults

ROOT = Path(__file__).resolve().parents[2]


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """A cluster's config as `ray up` would complete it.

    Ray's own check has no public name, so this takes what has one: how defaults are filled in, and the schema that is
    part of the package. What Ray asks for beyond the schema is asked here too.

    Raises: jsonschema.ValidationError or AssertionError where `ray up` would refuse it.
    """
    whole = fillout_defaults(copy.deepcopy(config))
    jsonschema.validate(whole, json.loads(schema().read_text()))
    if whole["provider"]["type"] == "local":  # one's own machines: named, all of one type
        assert isinstance(whole["provider"]["worker_ips"], list) and whole["provider"]["head_ip"]
        assert not {"available_node_types", "head_node", "worker_nodes"} & set(config)
        return whole
    types = whole["available_node_types"]
    assert whole["head_node_type"] in types
    assert sum(node.get("min_workers", 0) for node in types.values()) <= whole["max_workers"]
    return whole


def schema() -> Any:
    return resources.files("ray.autoscaler") / "ray-schema.json"


def test_ray_still_says_what_a_cluster_s_config_may_hold() -> None:
    """First to fail where an upgrade moves the schema: `checked` must then find another home for it."""
    assert schema().is_file(), "this Ray has no ray/autoscaler/ray-schema.json"
    properties = json.loads(schema().read_text())["properties"]
    assert {"available_node_types", "head_node_type", "max_workers", "provider"} <= set(properties)


@pytest.fixture(scope="module")
def cloud() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def commands(config: dict[str, Any], which: str) -> str:
    return "\n".join(config[which])


def test_ray_accepts_it_and_keeps_our_choices(cloud: dict[str, Any]) -> None:
    prepared = checked(cloud)
    assert set(prepared["available_node_types"]) == {"head", "gpu", "cpu"}, "a default node type slipped in"
    assert prepared["max_workers"] == 12


@pytest.mark.parametrize(
    "change",
    [{"max_worker": 3}, {"max_workers": "many"}, {"provider": {}}, {"setup_commands": "one"}],
    ids=["unknown key", "no number", "no provider", "no list"],
)
def test_what_ray_does_not_know_is_refused(cloud: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises((jsonschema.ValidationError, KeyError)):
        checked(cloud | change)


def test_types_that_do_not_fit_together_are_refused(cloud: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        checked(cloud | {"head_node_type": "none"})
    kept = copy.deepcopy(cloud)
    kept["available_node_types"]["cpu"]["min_workers"] = 13
    with pytest.raises(AssertionError):
        checked(kept)


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
    checked(config)
