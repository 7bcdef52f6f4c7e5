"""Every job is ended at each of its writes in turn, and given again: is the result the one of an undisturbed run?

    make faults                                                # all jobs, both ways to fail, disk and S3: see below
    python tests/faults/writes.py embed group --stores disk       # some jobs, on a disk
    python tests/faults/writes.py ingest --moments 1 5 9          # some moments of one

A job passes three moments with each file that it writes (retrieval/artifacts/writing/failpoint.py): half of it is
there; all of it, without its name; it has its name, and nobody has been told. For each moment 1..N the job is run in a
process that ends there (`exit`, as by kill -9), or whose write raises an error there (`error`), then once more without
any fault, and compared with an undisturbed run: fingerprints, hashes, books, names of files, and that nothing else is
left. `s3` is a server on loopback. A line a job says how many of its N moments came out equal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # sums in one order; and no threads that a fork would lose
os.environ |= {"MPLBACKEND": "Agg", "RETRIEVAL_PATIENCE": "0"}

from retrieval.artifacts.folder import Folder  # noqa: E402
from retrieval.artifacts.writing import failpoint  # noqa: E402
from tests.faults import forks  # noqa: E402
from tests.faults.jobs import JOBS, here, prepare  # noqa: E402
from tests.faults.results import left  # noqa: E402

MODES, STORES = ("exit", "error"), ("disk", "s3")


@dataclass(frozen=True, slots=True)
class Tally:
    """moments: N, of the undisturbed run. equal: of those that were tried. wrong: what the others did."""

    job: str
    store: str
    mode: str
    moments: int
    tried: int
    equal: int
    wrong: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 if any result differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", help=f"of: {' '.join(JOBS)}; none: all")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--moments", nargs="+", type=int, default=[], help="negative: from the end; none: all")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args(argv)
    if odd := set(args.jobs) - set(JOBS):
        parser.error(f"no such job: {', '.join(sorted(odd))}. Choose from: {', '.join(JOBS)}.")
    forks.preload()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, _stores(args.stores) as stores:
        root = Path(folder)
        forks.must(root / "prepare.log", lambda: in_one_process(lambda: prepare(root, args.jobs)))
        for store, base in stores.items():
            for job in args.jobs or JOBS:
                if store != "disk" and JOBS[job].on_disk_only:
                    print(f"{job:12} {store:5} only on a disk", flush=True)
                    continue
                for tally in _job(root, job, store, base, args):
                    wrong += tally.tried - tally.equal
    return int(wrong > 0)


def _job(root: Path, job: str, store: str, base: str, args: argparse.Namespace) -> Iterator[Tally]:
    at = _Place(root, job, f"{base or root / 'out'}/{job}")
    moments, undisturbed = at.undisturbed()
    chosen = [one if one > 0 else moments + 1 + one for one in args.moments] or list(range(1, moments + 1))
    for mode in args.modes:
        began, wrong = time.monotonic(), []
        work = [(n, lambda n=n, mode=mode: at.tried(n, mode, undisturbed)) for n in chosen]
        for number, said in forks.several(work, args.at_once):
            if said:
                wrong.append(f"{number}: {said}")
        tally = Tally(job, store, mode, moments, len(chosen), len(chosen) - len(wrong), tuple(wrong))
        spent = time.monotonic() - began
        files = f"{moments // 3} files, N = {moments}"
        print(f"{job:12} {store:5} {mode:6} {tally.equal} of {tally.tried} equal ({files}, {spent:.0f} s)", flush=True)
        for line in wrong[:5]:
            print(f"    at moment {line}", flush=True)
        yield tally


class _Place:
    """Where one job's runs lie. base: what the addresses of their folders begin with."""

    def __init__(self, root: Path, job: str, base: str) -> None:
        self._root, self._job, self._case, self._base = root, job, JOBS[job], base.rstrip("/")
        self._beside: set[int] = set()  # moments of files that are none of the job's own

    def undisturbed(self) -> tuple[int, dict[str, Any]]:
        """How many moments there are, and what is made. Raises: SystemExit if the job does not work at all."""
        name = "undisturbed"
        log, armed = self._root / f"{self._job}-{name}.log", self._root / f"{self._job}-{name}"
        failpoint.arm(armed, failpoint.COUNT)
        made = forks.must(log, lambda: self._run(name, armed))
        reached = failpoint.reached(armed)
        self._beside = {at for at, (_, path) in enumerate(reached, 1) if f"/{self._job}-{name}/" not in path}
        return len(reached), made

    def tried(self, number: int, mode: str, undisturbed: dict[str, Any]) -> str:
        """Fail at one moment, run again, compare. Returns what is wrong; empty if nothing is."""
        name = f"{mode}-{number}"
        log, armed = self._root / f"{self._job}-{name}.log", self._root / f"{self._job}-{name}"
        failpoint.arm(armed, f"{number}:{mode}")
        code, _ = forks.fork(log, lambda: self._run(name, armed))
        # A copy for MLflow that could not be written is told later, as in any outage, and ends no job.
        wanted = failpoint.EXIT_CODE if mode == "exit" else int(number not in self._beside)
        if code != wanted:
            return f"the first run ended with code {code}, expected {wanted}; {log.read_text()[-400:]}"
        code, made = forks.fork(log, lambda: self._run(name, None))
        if code != 0:
            return f"the second run failed: {log.read_text()[-700:]}"
        self._clear(name)
        if made == undisturbed:
            return ""
        names = sorted(name for name in made.keys() | undisturbed.keys() if made.get(name) != undisturbed.get(name))
        return f"these differ: {names}: {[(made.get(one), undisturbed.get(one)) for one in names[:1]]}"[:900]

    def _run(self, name: str, armed: Path | None) -> dict[str, Any]:
        out = Folder.of(f"{self._base}-{name}")
        if self._case.shared and not Path(out.path).exists():
            shutil.copytree(self._root / self._case.shared, out.path)
        in_one_process(lambda: self._case.run(self._root, out), armed)
        return left(out)

    def _clear(self, name: str) -> None:
        if "://" not in self._base:
            shutil.rmtree(f"{self._base}-{name}", ignore_errors=True)


def in_one_process(work: Callable[[], None], armed: Path | None = None) -> None:
    """Work here, with no cluster; the failpoint is on for as long as it lasts."""
    import pytest

    from retrieval.artifacts.writing import owner

    owner.SETTLE_S = 0.0  # nobody else comes
    with pytest.MonkeyPatch.context() as patch:
        here(patch)
        if armed is not None:
            patch.setenv(failpoint.VARIABLE, str(armed))
        work()


@contextlib.contextmanager
def _stores(names: Sequence[str]) -> Iterator[dict[str, str]]:
    """What addresses begin with in each; empty for the disk. The environment leads to the server."""
    with contextlib.ExitStack() as stack:
        found = {"disk": ""} if "disk" in names else {}
        if "s3" in names:
            found["s3"] = _bucket(stack)
        yield found


def _bucket(stack: contextlib.ExitStack) -> str:
    """A bucket of a server on loopback. It is made by another process: AWS's client does not outlive a fork."""
    import subprocess

    told = subprocess.Popen(
        [sys.executable, "-c", _SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stack.callback(told.wait)
    assert told.stdin is not None and told.stdout is not None
    stack.callback(told.stdin.close)
    found = json.loads(told.stdout.readline())
    os.environ |= found["environment"]
    return f"{found['bucket']}/out"


_SERVER = """
import json, sys
from tests.support.object_store import object_store
with object_store() as store:
    print(json.dumps({"environment": store.environment, "bucket": store.bucket()}), flush=True)
    sys.stdin.read()
"""

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # libraries that were only loaded have much to say at a proper end
