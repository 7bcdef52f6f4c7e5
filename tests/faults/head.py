"""The head's GCS is killed and started again, time and again: jobs end as undisturbed, and the service answers.

    python tests/faults/head.py ingest embed --kills 3

On a cluster of three nodes on this host whose head keeps what it knows in Redis or Valkey, a small gallery is served
and asked a few times a second while jobs run. Needs redis-server or valkey-server on the PATH.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults import chaos, forks  # noqa: E402
from tests.faults.nodes import Nodes, store_of_heads  # noqa: E402

_ASK_EVERY, _GIVEN_UP_AFTER = 0.25, 10.0  # seconds
_ANSWERS_WITHIN = 180.0  # seconds, of a service that is started


def main() -> int:
    """Returns the exit code: 1 if a result differs, or the service does not answer in the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=["ingest", "embed"], choices=chaos.NAMES)
    parser.add_argument("--kills", type=int, default=3, help="of the head, while each of the jobs runs")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    args = parser.parse_args()
    if not store_of_heads():
        print(f"Not tried. {chaos.NO_STORE}")
        return 0
    chaos.set_environment()
    forks.preload(*chaos.PRELOADED, "ray.serve")
    print(f"seed {args.seed}", flush=True)
    with chaos.folder(None) as root:
        chaos.inputs(root, args.jobs)
        nodes = Nodes(root / "ray", cpus=2, lasting=True)
        try:
            port, photo = forks.must(root / "serve.log", lambda: deploy(nodes.address, root))
            with asked(port, Path(photo), root / "asked"):
                trials = [chaos.Trial(root, nodes, chaos.work_of(name), args.seed) for name in args.jobs]
                for trial in trials:
                    for _ in range(args.kills):
                        trial.disturb(["head"])
                time.sleep(20 * _ASK_EVERY)
        finally:
            nodes.close()
        answers = [json.loads(line) for line in (root / "asked").read_text().splitlines()]
    failed, silence = told(answers)
    runs, equal = sum(trial.runs for trial in trials), sum(trial.equal for trial in trials)
    landed = sum(trial.landed.total() for trial in trials)
    print(f"{landed} kills of the head; {equal} of {runs} runs equal", flush=True)
    print(f"the service: {len(answers)} questions, {failed} without an answer, {silence:.1f} s at most in a row")
    return int(equal < runs or not all(good for _, good in answers[-10:]))


def deploy(address: str, root: Path) -> tuple[int, str]:
    """Serve a small gallery. Returns the port, and one of its photos. It stays when this process ends."""
    import ray
    from ray import serve

    from serve.app import build_app
    from serve.ingress import free_port
    from serve.settings import ServeArgs
    from tests.support.workspace import make_workspace

    made = make_workspace(root / "served")
    port = free_port()
    ray.init(address, log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    settings = {"precision": "fp32", "engine": "torch", "replica_cpus": 0.5, "max_replicas": 1}
    serve.run(build_app(ServeArgs(workspace=str(made.folder), **settings)))
    return port, str(next(iter(made.photos.values())))


@contextlib.contextmanager
def asked(port: int, photo: Path, answers: Path) -> Iterator[None]:
    """Ask for the length of the block, from a process of its own; a line a question: when, and whether it was answered.

    Raises: RuntimeError if there is no answer to begin with.
    """
    pid = forks.begin(answers.with_suffix(".log"), lambda: _ask(port, photo, answers))
    try:
        end = time.monotonic() + _ANSWERS_WITHIN
        while not (answers.exists() and "true" in answers.read_text()):
            if time.monotonic() > end:
                raise RuntimeError(f"the service does not answer: {answers.with_suffix('.log').read_text()[-1000:]}")
            time.sleep(_ASK_EVERY)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _ask(port: int, photo: Path, answers: Path) -> None:
    import httpx

    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_GIVEN_UP_AFTER) as client,
        answers.open("w") as file,
    ):
        while True:
            began = time.time()
            try:
                good = client.post("/v1/search?k=3", content=photo.read_bytes()).status_code == 200
            except httpx.HTTPError:
                good = False
            file.write(json.dumps([began, good]) + "\n")
            file.flush()
            time.sleep(_ASK_EVERY)


def told(answers: list[tuple[float, bool]]) -> tuple[int, float]:
    """How many questions had no answer once there had been one; the longest time between two answers, in seconds."""
    first = next(at for at, (_, good) in enumerate(answers) if good)
    times = [when for when, good in answers[first:] if good]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return sum(not good for _, good in answers[first:]), max(gaps, default=0.0)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
