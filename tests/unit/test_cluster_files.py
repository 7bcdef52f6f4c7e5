"""The files that say where this runs pass the checks of who will read them, and a key that nobody knows is refused."""

from __future__ import annotations

import copy
import importlib.util
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.fs as pafs
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve.settings import ServeArgs
from tests.support.kuberay import KINDS
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
MANIFESTS = {path.stem: path for path in sorted((CLUSTER / "kubernetes").glob("*.yaml"))}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFESTS[name].read_text()))


def clusters() -> Iterator[tuple[str, dict[str, Any]]]:
    """The cluster that each manifest describes."""
    for name in sorted(set(MANIFESTS) - {"config"}):
        spec = documents(name)[-1]["spec"]
        yield name, spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def check_serve(config: dict[str, Any]) -> None:
    """As `serve deploy` would, and no key that Ray would drop without a word. Raises: ValueError."""
    read = ServeDeploySchema.model_validate(config)
    known = set(type(read).model_fields)
    http = set(type(read.http_options).model_fields)
    for keys, allowed in (
        (set(config), known),
        (set(config.get("http_options", {})), http),
        *((set(app), set(type(read.applications[0]).model_fields)) for app in config["applications"]),
    ):
        if keys - allowed:
            raise ValueError(f"Serve knows no {', '.join(sorted(keys - allowed))}")
    for app in config["applications"]:
        ServeArgs.model_validate(app["args"])


def serve_configs() -> dict[str, dict[str, Any]]:
    service = documents("rayservice")[0]["spec"]["serveConfigV2"]
    return {"serve.yaml": yaml.safe_load((CLUSTER / "serve.yaml").read_text()), "rayservice": yaml.safe_load(service)}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_holds_what_kuberay_knows(name: str) -> None:
    for document in documents(name):
        jsonschema.validate(document, KINDS[document["kind"]])


def test_all_three_kinds_are_there() -> None:
    kinds = {document["kind"] for name in MANIFESTS for document in documents(name)}
    assert kinds == set(KINDS)


def keys_of(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every mapping in a document."""
    if isinstance(value, dict):
        yield at
        for key, inner in value.items():
            yield from keys_of(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from keys_of(inner, (*at, number))


FREE = {"data", "rayStartParams"}  # where any text may be a key


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_key_that_nobody_knows_is_refused_wherever_it_stands(name: str) -> None:
    for document in documents(name):
        places = [place for place in keys_of(document) if not FREE & set(place)]
        assert len(places) > 1 or document["kind"] == "ConfigMap"
        for place in places:
            changed = copy.deepcopy(document)
            inner = changed
            for key in place:
                inner = inner[key]
            inner["nobodyKnows"] = "this"
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(changed, KINDS[document["kind"]])


@pytest.mark.parametrize(
    ("name", "cluster"), list(clusters()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_versions_fit_and_the_head_takes_no_work(name: str, cluster: dict[str, Any]) -> None:
    assert cluster["rayVersion"] == version("ray")
    start = cluster["headGroupSpec"]["rayStartParams"]
    assert start["num-cpus"] == start["num-gpus"] == "0"
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert all(group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"] for group in groups.values())
    gpus = {
        name: "nvidia.com/gpu" in pods(cluster)[1 + at]["containers"][0]["resources"]["limits"]
        for at, name in enumerate(groups)
    }
    assert gpus == {"cpu": False, "gpu": True}
    for pod in pods(cluster):
        [container] = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"], "Ray counts the limits"
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_service_survives_its_head() -> None:
    assert "gcsFaultToleranceOptions" in documents("rayservice")[0]["spec"]["rayClusterConfig"]


@pytest.mark.parametrize("name", ["serve.yaml", "rayservice"])
def test_serve_takes_its_config(name: str) -> None:
    check_serve(serve_configs()[name])


@pytest.mark.parametrize(
    "change",
    [
        {"http_option": {}},
        {"http_options": {"hots": "127.0.0.1"}},
        {"http_options": {"port": "many"}},
        {"applications": [{"import_path": "a:b", "args": {"workspace": "w"}, "nam": "x"}]},
        {"applications": [{"import_path": "a:b", "args": {"workspace": "w", "max_kk": 3}}]},
        {"applications": [{"import_path": "no colon", "args": {"workspace": "w"}}]},
    ],
    ids=str,
)
def test_what_serve_does_not_know_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        check_serve(serve_configs()["serve.yaml"] | change)


def test_the_service_listens_to_its_own_node_only() -> None:
    assert serve_configs()["serve.yaml"]["http_options"]["host"] == "127.0.0.1"


def test_the_image_holds_the_locked_packages_and_the_code_and_runs_as_nobody_special() -> None:
    joined = re.sub(r"\\\n\s*", " ", (CLUSTER / "Dockerfile").read_text())
    steps = [line.partition(" ") for line in joined.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY"}
    assert {name for name, _, _ in steps} == known, "an instruction that Docker may know and this test does not"
    [base] = [rest for name, _, rest in steps if name == "FROM"]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base), "pinned, of the minor version that clusters use"
    for rest in (rest for name, _, rest in steps if name == "COPY"):
        *sources, _ = [word for word in shlex.split(rest) if not word.startswith("--")]
        assert all((ROOT / source).exists() for source in sources)
    assert "--require-hashes requirements.lock" in joined
    assert [rest for name, _, rest in steps if name == "USER"][-1] == "ray"


def names(path: Path) -> set[str]:
    return set(re.findall(r"^([A-Z_]+)=", path.read_text(), flags=re.MULTILINE))


def test_what_the_start_commands_ask_of_the_environment_is_in_it() -> None:
    told = names(CLUSTER / "cluster.env")
    asked = set(
        re.findall(r"\$\{?((?:LOGS|MLFLOW_DATABASE|MLFLOW_ARTIFACTS)\w*)", (CLUSTER / "start_mlflow.sh").read_text())
    )
    for path in (ROOT / "cluster.yaml", CLUSTER / "local.yaml"):
        config = yaml.safe_load(path.read_text())
        for where, source in config["file_mounts"].items():
            assert source.startswith("~") or (ROOT / source).is_file(), f"{where}: no {source}"
        assert "$LOGS/" in " ".join(config["head_start_ray_commands"] + config["worker_start_ray_commands"])
        asked.add("LOGS")
    assert asked == told


@pytest.mark.parametrize("path", [CLUSTER / "start_mlflow.sh"], ids=lambda path: path.name)
def test_scripts_are_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)


def shipped(tmp_path: Path) -> dict[str, bytes]:
    command = [sys.executable, str(CLUSTER / "ship_logs.py"), "--to", str(tmp_path / "far"), "--sessions"]
    subprocess.run([*command, str(tmp_path / "ray"), "--once"], check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in (tmp_path / "far").rglob("*.log")}


def test_logs_leave_the_node_with_what_was_added_to_them(tmp_path: Path) -> None:
    logs = tmp_path / "ray/session_1/logs"
    (logs / "serve").mkdir(parents=True)
    (tmp_path / "ray/session_latest").symlink_to("session_1")
    (logs / "driver.log").write_text("one\n")
    (logs / "serve/replica.log").write_text("up\n")
    (logs / "link.log").symlink_to(logs / "driver.log")
    assert shipped(tmp_path) == {"driver.log": b"one\n", "replica.log": b"up\n"}
    with (logs / "driver.log").open("a") as log:
        log.write("two\n")
    assert shipped(tmp_path)["driver.log"] == b"one\ntwo\n"
    [node] = (tmp_path / "far").iterdir()
    assert (node / "session_1/serve/replica.log").is_file()


def test_a_node_without_a_session_ships_nothing_and_goes_on(tmp_path: Path) -> None:
    assert shipped(tmp_path) == {}


def test_it_ends_with_ray_and_copies_what_was_said_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    session = Path("ray/session_1")
    for name in ("logs", "sockets"):
        (session / name).mkdir(parents=True)
    Path("ray/session_latest").symlink_to("session_1")
    (session / "logs/driver.log").write_text("one\n")
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(session / "sockets/raylet"))
        raylet.listen()
        words = ["--to", "far", "--sessions", "ray", "--every", "0.01"]
        shipping = subprocess.Popen([sys.executable, str(CLUSTER / "ship_logs.py"), *words])
        raylet.accept()[0].close()
        until(lambda: list(Path("far").rglob("driver.log")))
        assert shipping.poll() is None
        with (session / "logs/driver.log").open("a") as log:
            log.write("the last\n")
    try:
        assert shipping.wait(60) == 0
    finally:
        shipping.kill()
    [copy] = Path("far").rglob("driver.log")
    assert copy.read_text() == "one\nthe last\n"


def test_what_did_not_change_is_not_copied_again_and_what_failed_is(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("ship_logs", CLUSTER / "ship_logs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    logs, known, here = tmp_path / "logs", dict[str, tuple[int, int]](), pafs.LocalFileSystem()
    logs.mkdir()
    (logs / "a.log").write_text("a")
    (tmp_path / "file").write_text("in the way")
    assert module.ship(logs, here, str(tmp_path / "file"), known) == 0
    assert [module.ship(logs, here, str(tmp_path / "far"), known) for _ in range(2)] == [1, 0]
    (logs / "b.log").write_text("b")
    assert module.ship(logs, here, str(tmp_path / "far"), known) == 1
