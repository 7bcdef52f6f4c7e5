"""Machines of one's own, from `ray up cluster/local.yaml` to `ray down`: the commands of docs/how-to/run, one by one.

    python tests/faults/own_machines.py --workers 2

A head and workers with the addresses that the file has, each in namespaces of its own on this host (no root, no way
out, nothing of this host's Ray is touched), reached by SSH from a laptop that has a clean copy of the project; an S3
server; MLflow on the head. Both pipelines by `ray job submit`, the service deployed by its config file and asked over
HTTP, a photo added, its model swapped and swapped back under queries, `ray down`. Exits with 1 at the first thing that
is not as the documents say.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402

from retrieval.artifacts.folder import Folder  # noqa: E402
from retrieval.artifacts.manifest import read_manifest  # noqa: E402
from retrieval.artifacts.published import read_current  # noqa: E402
from tests.faults.storage import draw  # noqa: E402
from tests.support.laptop import BIN, JOBS, Laptop, edit, wait_for  # noqa: E402
from tests.support.object_store import ObjectStore, object_store  # noqa: E402
from tests.support.own_hosts import Host, enter, missing, network  # noqa: E402

LAPTOP = "10.0.0.254"
SERVICE = "http://127.0.0.1:8000"
SMALL = (
    "--layout folder --reconstruct.num-words 512 --reconstruct.num-candidates 8 --reconstruct.max-features 1536 "
    "--reconstruct.min-shared 10 --siamese.epochs 1 --siamese.num-negatives 2 --siamese.image-size 128 "
    "--model.image-size 128 --model.embedding-dim 16 --scales 1.0 --rerank 0 --num-workers 2"
)
ROADS = {"faces": "faces --layout folder", "places": f"demo-landmarks {SMALL}"}
"""What is drawn -> the pipeline over it, as small as it can be."""


def set_up(laptop: Laptop, bucket: str, workers: int) -> None:
    """Addresses, user, key, bucket, store: what the files are to be told."""
    endpoint = laptop.store.environment["AWS_ENDPOINT_URL"]
    (laptop.home / ".aws/credentials").write_text("[default]\naws_access_key_id=test\naws_secret_access_key=test\n")
    cluster = laptop.project / "cluster"
    edit(
        cluster / "cluster.env",
        (r"^LOGS=.*", f"LOGS={bucket}/logs"),
        (r"^MLFLOW_ARTIFACTS=.*", f"MLFLOW_ARTIFACTS={bucket}/mlflow"),
        (r"^# AWS_ENDPOINT_URL=.*", f"AWS_ENDPOINT_URL={endpoint}"),
        (r"^# AWS_REGION=.*", "AWS_REGION=us-east-1"),
    )
    edit(cluster / "local.yaml", (r"^    # (~/\.aws/credentials: .*)", r"    \1"))
    if workers < 2:
        edit(cluster / "local.yaml", (r"^    worker_ips: .*", "    worker_ips: [10.0.0.2]"))
    edit(
        cluster / "serve.yaml",
        (r"s3://BUCKET/retrieval\.zip", f"{bucket}/retrieval.zip"),
        (r"s3://BUCKET/faces", f"{bucket}/faces"),
    )
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if version != "3.11":
        edit(cluster / "local.yaml", (r"--python 3\.11", f"--python {version}"))
    laptop.run("ray get-auth-token --generate")


def closed(laptop: Laptop, hosts: dict[str, Host]) -> None:
    """From elsewhere in the network nobody reaches dashboard, jobs or service, and no job server without the token."""
    for host in hosts.values():
        for port in (8265, 8000):
            with socket.socket() as tried:
                tried.settimeout(3)
                if tried.connect_ex((host.address, port)) == 0:
                    raise SystemExit(f"{host.name} listens at port {port} of the network")
    if (code := httpx.get(f"{JOBS}/api/jobs/", timeout=10).status_code) != 401:
        raise SystemExit(f"the job server answers {code} without the token")
    laptop.say("from the network: dashboard and service closed; the job server without the token: 401")


def nodes_joined(laptop: Laptop, num: int) -> bool:
    token = (laptop.home / ".ray/auth_token").read_text().strip()
    try:
        answer = httpx.get(
            f"{JOBS}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}, timeout=20
        ).json()
    except (httpx.HTTPError, ValueError):
        return False
    alive = [node for node in answer["data"]["summary"] if node["raylet"].get("state") == "ALIVE"]
    return len(alive) == num


def results(laptop: Laptop, workspace: str) -> None:
    """What a pipeline published: books that balance, and a fingerprint of each."""
    folders = read_current(Folder.of(f"{workspace}{laptop.store.options}"))
    counts = read_manifest(folders["collection"]).counts
    if counts["source"] != counts["stored"] + counts["rejected"] or not counts["stored"]:
        raise SystemExit(f"the books of {workspace} do not balance: {counts}")
    prints = {kind: read_manifest(folder).fingerprint[:8] for kind, folder in folders.items()}
    laptop.say(
        f"{counts['source']} photos = {counts['stored']} + {counts['rejected_by_reason']}; "
        + ", ".join(f"{kind} {name}" for kind, name in prints.items())
    )


def submit(laptop: Laptop, road: str, bucket: str, *more: str) -> None:
    """`ray job submit` of a pipeline, in the workspace named after it."""
    words = f"{ROADS[road]} --source {bucket}/photos-{road} --workspace {bucket}/{road} {' '.join(more)}".strip()
    laptop.run(f"ray job submit --working-dir . -- python -m ray_jobs.pipeline {words}", within=1500)
    results(laptop, f"{bucket}/{road}")


class Asking:
    """Asks the service for a photo that it holds, again and again, and notes who answered."""

    def __init__(self, photo: bytes, image_id: str) -> None:
        self.photo, self.image_id = photo, image_id
        self.answers, self.failed = list[str](), list[str]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def once(self) -> str:
        """The version that answered. Raises: httpx.HTTPError or ValueError if it did not find the photo."""
        answer = httpx.post(f"{SERVICE}/v1/search?k=3", content=self.photo, timeout=30)
        answer.raise_for_status()
        if self.image_id not in answer.text:
            raise ValueError(f"{self.image_id} was not found: {answer.text[:300]}")
        return answer.json()["version"]

    def up(self) -> str | None:
        try:
            return self.once()
        except (httpx.HTTPError, ValueError):
            return None

    def _run(self) -> None:
        while not self._over.wait(0.25):
            try:
                self.answers.append(self.once())
            except (httpx.HTTPError, ValueError) as error:
                self.failed.append(str(error))

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def serve(laptop: Laptop, head: Host, store: ObjectStore, bucket: str) -> None:
    """Deploy by the config file, ask, add a photo, swap the model and swap back."""
    laptop.run("git archive --format zip -o retrieval.zip HEAD")
    archive = laptop.project / "retrieval.zip"
    Folder.of(f"{bucket}{store.options}").write_bytes("retrieval.zip", archive.read_bytes())
    archive.unlink()
    laptop.run(f"serve deploy cluster/serve.yaml -a {JOBS}")
    laptop.keep_open(shlex.join(head.ssh("-N", "-L", "8000:127.0.0.1:8000")))
    name, photo = next(
        (name, photo) for name, photo in store.objects(f"{bucket}/photos-faces").items() if len(photo) > 99
    )
    asking = Asking(photo, name)
    try:
        first = wait_for("the service answers", asking.up, 600)
    except SystemExit as late:
        raise SystemExit(f"{late}\n{laptop.run(f'serve status -a {JOBS}')[-4000:]}") from None
    laptop.say(f"POST /v1/search: {name} finds itself; version {first}")
    added = httpx.post(f"{SERVICE}/v1/images?image_id=new/one.jpg&label=new", content=photo, timeout=60)
    told = added.json().get("items", [added.text[:200]])
    laptop.say(f"POST /v1/images: {added.status_code} {told[0]}"[:120])
    if added.status_code not in (200, 201):
        raise SystemExit("no photo can be added")
    with asking:
        submit(laptop, "faces", bucket, "--model.no-flip")
        wait_for("another version answers", lambda: asking.answers and asking.answers[-1] != first, 120)
        second = asking.answers[-1]
        laptop.say(f"the pipeline with another model is published; the service answers with {second}")
        laptop.run(f"python -m ray_jobs.publish --workspace {bucket}/faces --back")
        wait_for("the first answers again", lambda: asking.answers[-1] == first, 120)
    laptop.say(f"swapped and swapped back under {len(asking.answers)} queries, {len(asking.failed)} failed")
    if asking.failed:
        raise SystemExit("\n".join(sorted(set(asking.failed))[:5]))


def tracked(laptop: Laptop) -> None:
    """Every run of a pipeline is a finished run in MLflow on the head."""
    api = "http://10.0.0.1:5000/api/2.0/mlflow"
    experiments = httpx.post(f"{api}/experiments/search", json={"max_results": 100}, timeout=60).json()["experiments"]
    ids = [each["experiment_id"] for each in experiments]
    runs = httpx.post(f"{api}/runs/search", json={"experiment_ids": ids}, timeout=60).json()["runs"]
    states = sorted(f"{run['info']['run_name']} {run['info']['status']}" for run in runs)
    laptop.say(f"MLflow on the head: {', '.join(states)}")
    if sum(state.endswith("FINISHED") for state in states) < 3:
        raise SystemExit("not every pipeline is a finished run of MLflow")


def down(laptop: Laptop, hosts: dict[str, Host]) -> None:
    """`ray down`, and what it leaves."""
    ours = ("raylet", "gcs_server", "ray::", "ship_logs.py")  # Ray's log monitor stays on workers until `ray up`

    def running() -> list[str]:
        commands = [command for host in hosts.values() for command in host.processes().values()]
        return [command for command in commands if any(name in command for name in ours)]

    laptop.run("ray exec cluster/local.yaml 'kill $(cat ~/mlflow.pid)'")
    laptop.run("ray down -y cluster/local.yaml")
    began = time.monotonic()
    wait_for("no node of Ray, and no copying of logs, on any machine", lambda: not running(), 300)
    laptop.say(f"no node of Ray, and no copying of logs, on any machine {time.monotonic() - began:.0f} s later")
    for host in hosts.values():
        left = sorted({command[-80:] for command in host.processes().values()})
        laptop.say(f"left on {host.name}: {left or 'nothing'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, choices=(1, 2), help="machines besides the head")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    args = parser.parse_args()
    if lacks := missing():
        raise SystemExit(lacks)
    enter()
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    try:
        walk(folder, args.workers)
    finally:
        if args.keep:
            print(f"logs: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def walk(folder: Path, workers: int) -> None:
    """All of it."""
    socket.sethostname(f"laptop-{os.environ['RETRIEVAL_OWN_HOSTS']}")  # SSH names its shared connections after it
    addresses = {"head": "10.0.0.1"} | {f"worker-{at}": f"10.0.0.{1 + at}" for at in range(1, workers + 1)}
    uv = shutil.which("uv", path=f"{BIN}:{os.environ['PATH']}")
    if uv is None:
        raise SystemExit("uv is missing beside this Python: make setup")
    cache = subprocess.check_output([uv, "cache", "dir"], text=True).strip()
    # These machines reach no package registry: their packages come from what `make setup` kept, by hash all the same.
    profile = f"export UV_OFFLINE=1 UV_LINK_MODE=symlink UV_CACHE_DIR={cache} PATH=$PATH:{sys.base_prefix}/bin\n"
    (folder / "laptop/home/.ssh").mkdir(parents=True, exist_ok=True)
    key = folder / "laptop/home/.ssh/id_ed25519"
    with network(folder, LAPTOP, addresses, key, profile) as hosts, object_store(LAPTOP) as store:
        for host in hosts.values():
            (host.home / ".uv/bin").mkdir(parents=True, exist_ok=True)
            shutil.copy(uv, host.home / ".uv/bin/uv")
        os.environ.update(store.environment)
        laptop, bucket = Laptop(folder / "laptop", store), store.bucket()
        for road in ROADS:
            num = draw(road, Folder.of(f"{bucket}/photos-{road}{store.options}"))
            laptop.say(f"{num} photos of {road} in the bucket")
        try:
            cluster(laptop, hosts, store, bucket)
        finally:
            for tunnel in laptop.tunnels:
                tunnel.kill()


def cluster(laptop: Laptop, hosts: dict[str, Host], store: ObjectStore, bucket: str) -> None:
    set_up(laptop, bucket, len(hosts) - 1)
    laptop.run("ray up -y cluster/local.yaml", within=1500)
    laptop.keep_open("ray dashboard cluster/local.yaml")
    wait_for("all machines joined", lambda: nodes_joined(laptop, len(hosts)), 1500)
    laptop.say(f"{len(hosts)} machines joined")
    laptop.run("ray exec cluster/local.yaml 'RAY_AUTH_MODE=token ray status'")
    for road in ROADS:
        submit(laptop, road, bucket)
    serve(laptop, hosts["head"], store, bucket)
    closed(laptop, hosts)
    tracked(laptop)
    laptop.run(f"python -m ray_jobs.status --workspace {bucket}/faces")
    shipped = [name for name in store.objects(f"{bucket}/logs") if name.endswith((".log", ".out", ".err"))]
    laptop.say(f"{len(shipped)} logs of {len({name.split('/')[1] for name in shipped})} machines in the bucket")
    down(laptop, hosts)


if __name__ == "__main__":
    main()
