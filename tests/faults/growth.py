"""Every job on a cluster without a machine: does it get what it needs, no more, and does that go again?

    make faults                                        # with others, see the Makefile
    python tests/faults/growth.py embed group          # some jobs
    python tests/faults/growth.py --keep-log FOLDER    # what each said

Ray's own autoscaler starts raylets on this host for machines (tests/support/growing.py): `cpu` ones and `gpu` ones,
whose GPU is declared and not there. Each job is a driver of that cluster on small inputs, which it shares with `make
faults`. A line a job: machines before, what was asked for, the most there were, those left after the idle time. It is
wrong if the job fails, machines of another type came, more than it has work for, or one stays.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ |= {
    "MPLBACKEND": "Agg",
    "RETRIEVAL_PATIENCE": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
} | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
os.environ.pop("RAY_ADDRESS", None)

from tests.faults.jobs import JOBS, here, prepare  # noqa: E402
from tests.support.growing import GrowingCluster, Growth, growing_cluster  # noqa: E402

# One of JOBS, as a driver of the cluster that RAY_ADDRESS names.
_JOB = """
import contextlib, sys
from pathlib import Path
from ray_jobs.runtime.session import session
from retrieval.artifacts.folder import Folder
from tests.faults.jobs import JOBS
with session() if sys.argv[1] == "draw" else contextlib.nullcontext():  # a part of a pipeline, in its session
    JOBS[sys.argv[1]].run(Path(sys.argv[2]), Folder.of(sys.argv[3]))
"""
# The same job where its device is declared only: it must land where it sees the device, and then computes on the CPU.
_CUDA = """
import sys
from tests.support.declared import embed_where_a_gpu_is_declared
embed_where_a_gpu_is_declared(sys.argv[1], sys.argv[2])
"""
_SMALL_DEMO = ("--demo.num-identities", "12", "--demo.images-per-identity", "4", "--train.epochs", "1")
_SMALL_PLACES = ("--scenes.num-places", "3", "--scenes.images-per-place", "4", "--siamese.epochs", "1")


@dataclass(frozen=True, slots=True)
class Case:
    """One run. command: given the folder with all inputs and where to write. most: the machines that it has work for at
    any time, by type. fails: what it says where it is to fail. needs: of JOBS, whose inputs it takes."""

    command: Callable[[Path, str], Sequence[str]]
    most: dict[str, int]
    fails: str = ""
    needs: str = ""


def _job(name: str) -> Case:
    on_cluster = name not in ("publish", "freeze")
    return Case(
        lambda root, out: (sys.executable, "-c", _JOB, name, str(root), out), {"cpu": 2} if on_cluster else {}, "", name
    )


def _module(*words: str) -> Callable[[Path, str], Sequence[str]]:
    return lambda root, out: (
        *(sys.executable, "-m"),
        *(word.replace("ROOT", str(root)).replace("OUT", out) for word in words),
    )


CASES = {name: _job(name) for name in JOBS} | {
    "embed-cuda": Case(lambda root, out: (sys.executable, "-c", _CUDA, str(root), out), {"gpu": 2}, "", "embed"),
    "embed-never": Case(
        _module(
            *("ray_jobs.embed", "--collection", "ROOT/collection", "--model", "ROOT/model", "--out", "OUT"),
            *("--device", "cuda", "--cpus-per-worker", "64", "--wait-seconds", "8"),
        ),
        {},
        "waited 8 s for 1 x 64 CPU and 1 GPU",
        "embed",
    ),
    "evaluate-source": Case(
        _module("ray_jobs.evaluate", "--model", "ROOT/model", "--source", "ROOT/drawn", "--out", "OUT"),
        {"cpu": 2},
        "",
        "embed",
    ),
    "pipeline-faces": Case(_module("ray_jobs.pipeline", "demo", "--workspace", "OUT", *_SMALL_DEMO), {"cpu": 3}),
    "pipeline-places": Case(
        _module("ray_jobs.pipeline", "demo-landmarks", "--workspace", "OUT", *_SMALL_PLACES), {"cpu": 3}
    ),
}


KILLED = "killed"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", help=f"of: {' '.join(CASES)} {KILLED}; none: all")
    parser.add_argument("--keep-log", type=Path, help="a folder for what each job says")
    args = parser.parse_args(argv)
    if odd := set(args.jobs) - {*CASES, KILLED}:
        parser.error(f"no such job: {', '.join(sorted(odd))}. Choose from: {', '.join(CASES)}, {KILLED}.")
    chosen = args.jobs or [*CASES, KILLED]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else the cluster would outlive it
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="growth-") as folder, growing_cluster(dashboard=True) as cluster:
        root = Path(folder)
        _prepare(root, {CASES[name].needs if name in CASES else "embed" for name in chosen} - {""})
        for name in chosen:
            wrong += not (_killed(cluster, root) if name == KILLED else _tried(cluster, name, root, args.keep_log))
    return int(wrong > 0)


def _prepare(root: Path, jobs: set[str]) -> None:
    """Inputs are made in this process, by no cluster."""
    import pytest

    from retrieval.artifacts.writing import owner

    if jobs:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, "SETTLE_S", 0.0)
            here(patch)
            prepare(root, sorted(jobs))


def _tried(cluster: GrowingCluster, name: str, root: Path, keep: Path | None) -> bool:
    """Run one, tell what became of the cluster. Returns whether all is right."""
    import shutil

    case, out = CASES[name], root / f"out-{name}"
    if name in JOBS and JOBS[name].shared:
        shutil.copytree(root / JOBS[name].shared, out)
    growth = cluster.run(*case.command(root, str(out)), within=600)
    faults = wrong_with(growth, case)
    asked = "; ".join(growth.asked) or "nothing"
    told = f"before {_told(growth.before)}, asked for {asked}, most {_told(growth.most)}, after {_told(growth.after)}"
    print(f"{name:16} {told} ({growth.seconds:.0f} s, gone after {growth.shrunk:.0f} s more)", flush=True)
    for fault in faults:
        print(f"    wrong: {fault}", flush=True)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{name}.log").write_text(growth.said)
    return not faults


def _killed(cluster: GrowingCluster, root: Path) -> bool:
    """Kill -9 a job that waits for what never comes: is that asked for no more? Returns whether it is."""
    never = [*CASES["embed-never"].command(root, str(root / "out-killed"))[:-1], "600"]
    driver, said = cluster.start(*never)
    asked = _becomes(cluster, lambda wanted: any("CPU 64" in one for one in wanted))
    driver.kill()
    over = asked and _becomes(cluster, lambda wanted: not wanted)
    told = "asked for no more" if over else f"wrong: {cluster.look()[1]} is asked for: {said.read_text()[-1500:]}"
    print(f"{KILLED:16} while it waited: {told}", flush=True)
    return over


def _becomes(cluster: GrowingCluster, so: Callable[[list[str]], bool], within: float = 90.0) -> bool:
    end = time.monotonic() + within
    while not so(cluster.look()[1]):
        if time.monotonic() > end:
            return False
        time.sleep(0.3)
    return True


def wrong_with(growth: Growth, case: Case) -> list[str]:
    """What became of the cluster that should not have."""
    faults = []
    if (growth.code != 0) != bool(case.fails) or case.fails not in growth.said:
        faults.append(f"it ended with {growth.code}: {growth.said[-1500:]}")
    if growth.before:
        faults.append("machines were there before it")
    if not growth.most <= Counter(case.most):
        faults.append(f"{_told(growth.most)} came, expected at most {_told(case.most)}")
    if case.most and not growth.most:
        faults.append("no machine came")
    if growth.after:
        faults.append(f"{_told(growth.after)} did not go")
    return faults


def _told(machines: Mapping[str, int]) -> str:
    return " + ".join(f"{number} {name}" for name, number in sorted(machines.items())) or "0"


if __name__ == "__main__":
    raise SystemExit(main())
