"""cluster.yaml, and cluster/local.yaml for one's own machines, pass the checks of `ray up` itself."""

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

from ray_jobs.runtime.parallel.placement import GB, Needs

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
        assert "RAY_USAGE_STATS_ENABLED=0" in commands(cloud, which), "nothing is sent anywhere"
    assert "~/.ray/auth_token" in cloud["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in commands(cloud, "head_start_ray_commands")


def test_every_node_installs_the_lock_by_hash(cloud: dict[str, Any]) -> None:
    assert "--require-hashes ~/requirements.lock" in commands(cloud, "setup_commands")
    assert (ROOT / cloud["file_mounts"]["~/requirements.lock"]).is_file()


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster/local.yaml").read_text())


def test_the_file_for_own_machines_is_accepted(own: dict[str, Any]) -> None:
    assert own["provider"]["type"] == "local"
    checked(own)
    assert not {"min_workers", "max_workers"} & set(own), "Ray takes the number of worker_ips, and nobody forgets it"
    with pytest.raises(jsonschema.ValidationError):
        checked(own | {"worker_ip": []})


def test_own_machines_ask_for_the_token_too(own: dict[str, Any], cloud: dict[str, Any]) -> None:
    test_every_node_asks_for_the_token_and_nothing_listens_outside(own)
    test_every_node_installs_the_lock_by_hash(own)
    assert "RAY_enable_autoscaler_v2=0" in commands(own, "head_start_ray_commands"), "or no worker joins (Ray 2.60)"
    assert own["file_mounts"] == cloud["file_mounts"]


def test_a_key_of_the_provider_that_ray_does_not_know_is_refused(cloud: dict[str, Any], own: dict[str, Any]) -> None:
    """Ray's schema lets any key of a provider pass, since others may bring their own."""
    known = set(json.loads(schema().read_text())["properties"]["provider"]["properties"])
    assert set(cloud["provider"]) | set(own["provider"]) <= known
    assert {"use_internal_ip", "availability_zones"} & known == set(), "the check above would see a slip"


def test_who_may_come_to_a_node_is_said_by_a_group_that_ray_leaves_alone(cloud: dict[str, Any]) -> None:
    """Ray opens SSH to the world in a group that has no rules, and adds those of IpPermissions then."""
    assert cloud["provider"]["security_group"] == {"GroupName": "retrieval-nodes"}
    page = (ROOT / "docs/how-to/run/cluster.md").read_text()
    assert "--group-name retrieval-nodes" in page and "0.0.0.0/0" not in page


@pytest.mark.parametrize("file", ["cluster.yaml", "cluster/local.yaml"])
def test_jobs_find_mlflow_and_logs_leave_every_node(file: str) -> None:
    config = yaml.safe_load((ROOT / file).read_text())
    head, worker = commands(config, "head_start_ray_commands"), commands(config, "worker_start_ray_commands")
    for which in (head, worker):
        assert "export MLFLOW_TRACKING_URI=" in which and "ship_logs.py --to" in which
        assert "--metrics-export-port=8080" in which
        assert which.count("set -a; . ~/cluster.env") >= 2, "jobs, the service and the logs take it from here"
    assert "start_mlflow.sh" in head and "start_mlflow.sh" not in worker


def test_what_costs_more_than_it_can_lose_is_on_demand(cloud: dict[str, Any]) -> None:
    spot = {
        name: "InstanceMarketOptions" in node["node_config"] for name, node in cloud["available_node_types"].items()
    }
    assert spot == {"head": False, "gpu": False, "cpu": True}
    assert 0 < cloud["idle_timeout_minutes"] <= 10 and cloud["provider"]["cache_stopped_nodes"] is False


def test_what_is_installed_has_a_version_and_the_head_can_ask_aws_for_nodes(cloud: dict[str, Any]) -> None:
    installs = re.findall(r"pip install [^&|]*", commands(cloud, "setup_commands"))
    assert [re.search(r"'[a-z0-9]+(==[0-9.]+|<1)'", each) is not None for each in installs] == [True]
    assert "head_setup_commands" not in cloud
    assert re.search(r"^boto3==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("asked", [Needs(), Needs(cpus=4, memory=8 * GB), Needs(gpus=1, memory=8 * GB)], ids=str)
def test_what_jobs_ask_for_fits_a_node_that_can_be_started(cloud: dict[str, Any], asked: Needs) -> None:
    """So the autoscaler finds one, with none alive: it decides by the resources that a type declares."""
    workers = [node for name, node in cloud["available_node_types"].items() if name != cloud["head_node_type"]]
    assert any(asked.fit({"memory": 16.0 * GB, **node["resources"]}) for node in workers)
