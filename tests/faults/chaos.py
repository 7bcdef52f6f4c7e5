"""Kill -9 at random moments, on a cluster of three nodes on this host: does each run end as an undisturbed one?

    make chaos                                                       # both pipelines, then every job alone: see below
    python tests/faults/chaos.py --jobs faces places --rounds 5      # 10 drivers, 10 workers, 10 raylets
    python tests/faults/chaos.py --jobs ingest --kinds worker --rounds 3 --seed 7

Killed are the driver, and the same job is given again; a worker process that is at work; the raylet of a node, and a
new node joins; with `--kinds head` the head's GCS, which is started again with what Redis or Valkey kept of it.

A pipeline has `rounds` of each kind, a job alone `rounds` in all, of each kind in turn; up to one of each kind falls
into one run. Moments are drawn over the time that the undisturbed run took. Fingerprints, hashes and books of all that
is sealed must come out equal. A line a kill; what is drawn for a run depends on seed, job and the run's number alone.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import itertools
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from retrieval.artifacts.folder import Folder  # noqa: E402
from tests.faults import forks  # noqa: E402
from tests.faults.jobs import JOBS, prepare  # noqa: E402
from tests.faults.nodes import Nodes, store_of_heads  # noqa: E402
from tests.faults.results import left, sealed  # noqa: E402
from tests.faults.storage import ROADS, draw  # noqa: E402
from tests.faults.writes import in_one_process  # noqa: E402

KINDS = ("driver", "worker", "raylet", "head")
NAMES = [*ROADS, *JOBS]
PRELOADED = ("ray", "ray.cluster_utils")
_OF_ROADS = ("ray.train.torch", "mlflow")
NO_STORE = "To kill the head, redis-server or valkey-server must be on the PATH: apt install redis-server."
IN_THE_DRIVER = ("freeze", "publish")
"""Jobs that need no cluster."""
_EXTRA = 3  # runs for kills that found a run over
_LOOK_EVERY = 0.05  # seconds


def set_environment() -> None:
    """Of this process, and of all that it starts; before a heavy library is loaded."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # sums in one order; and no threads that a fork would lose
    os.environ |= {"MPLBACKEND": "Agg", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {"PYTHONPATH": str(ROOT), "RETRIEVAL_PATIENCE": "60"}


@dataclass(frozen=True, slots=True)
class Work:
    """A job or a pipeline. run: (folder with its inputs, where to write). made: what it left there."""

    name: str
    run: Callable[[Path, Folder], None]
    made: Callable[[Folder], dict[str, Any]]
    shared: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    kind: str
    due: float
    """Seconds since the run began."""
    what: str = ""
    at: float = 0.0


def work_of(name: str) -> Work:
    if name in ROADS:
        return Work(name, lambda root, out: _road(name, root, out), sealed)
    return Work(name, JOBS[name].run, left, JOBS[name].shared)


def _road(name: str, root: Path, out: Folder) -> None:
    from ray_jobs import pipeline

    cfg = ROADS[name](Folder.of(root / f"photos-{name}"), out, f"sqlite:///{out.path}.db")
    pipeline.main(replace(cfg, num_workers=1) if name == "places" else cfg)


class Trial:
    """One job: undisturbed first, then with kills."""

    def __init__(self, root: Path, nodes: Nodes, work: Work, seed: int) -> None:
        self._root, self._nodes, self._work, self._seed = root, nodes, work, seed
        self.landed: Counter[str] = Counter()
        self.runs = self.equal = 0
        began = time.monotonic()
        self._made = forks.must(self._log("undisturbed"), lambda: self._drive("undisturbed"))
        self._undisturbed_s = time.monotonic() - began
        print(f"{work.name:12} undisturbed: {self._undisturbed_s:.1f} s, {len(self._made)} results", flush=True)

    def disturb(self, kinds: Sequence[str]) -> list[str]:
        """One run with these kills. Returns those that found it over."""
        self.runs += 1
        name = f"run-{self.runs}"
        rng = random.Random(f"{self._seed} {self._work.name} {self.runs}")
        moments = sorted(rng.uniform(0.0, 0.95 * self._undisturbed_s) for _ in kinds)
        planned = [Kill(kind, moment) for kind, moment in zip(rng.sample(kinds, len(kinds)), moments, strict=True)]
        self._nodes.whole()
        began, wrong, landed = time.monotonic(), "", list[Kill]()
        try:
            self._run(name, planned, landed, rng)
        except RuntimeError as error:
            wrong = str(error)
        spent = time.monotonic() - began
        wrong = wrong or self._compared(name)
        self.equal += not wrong
        self.landed.update(kill.kind for kill in landed)
        self._tell(landed, spent - self._undisturbed_s, "WRONG" if wrong else "equal")
        if wrong:
            print(f"    {self._work.name} {name}, seed {self._seed}, planned {planned}: {wrong}", flush=True)
            return []
        self._undisturbed_s = min(spent, self._undisturbed_s)  # the first run of a cluster takes longer
        return list((Counter(kinds) - Counter(kill.kind for kill in landed)).elements())

    def _run(self, name: str, planned: list[Kill], landed: list[Kill], rng: random.Random) -> None:
        """Drive it to its end, and kill on the way. Args: landed: filled with the kills that found somebody.

        Raises: RuntimeError if it fails, or does not end.
        """
        log, waiting, began = self._log(name), list(planned), time.monotonic()
        longest = 6 * self._undisturbed_s + 120 * (1 + len(planned))
        pid = forks.begin(log, lambda: self._drive(name))
        try:
            while True:
                ended, status = os.waitpid(pid, os.WNOHANG)
                now = time.monotonic() - began
                if ended:
                    pid, code = 0, os.waitstatus_to_exitcode(status)
                    if code == 0:
                        return
                    raise RuntimeError(f"it ended with code {code}\n{_tail(log)}")
                if now > longest:
                    os.kill(pid, signal.SIGUSR1)  # it says where it is
                    time.sleep(1.0)
                    raise RuntimeError(f"it did not end within {longest:.0f} s\n{_tail(log)}")
                for kill in [one for one in waiting if one.due <= now]:
                    if kill.kind == "driver":
                        _end(pid)
                        what, pid = f"driver {pid}", forks.begin(log, lambda: self._drive(name))
                    else:
                        what = self._nodes.kill(kill.kind, rng)
                    if what:
                        waiting.remove(kill)
                        landed.append(replace(kill, what=what, at=now))
                time.sleep(_LOOK_EVERY)
        finally:
            if pid:
                _end(pid)

    def _drive(self, name: str) -> dict[str, Any]:
        """In a process of its own: the job, whole or what is left to do of it."""
        faulthandler.register(signal.SIGUSR1)
        os.environ["RAY_ADDRESS"] = self._nodes.address
        place, shared = self._out(name), self._work.shared
        if shared and not place.exists():
            shutil.copytree(self._root / shared, f"{place}.copied", dirs_exist_ok=True)
            os.rename(f"{place}.copied", place)
        out = Folder.of(place)
        self._work.run(self._root, out)
        return self._work.made(out)

    def _compared(self, name: str) -> str:
        """What is wrong with what was made; empty if nothing is. Looked at from another process, a moment later."""
        code, made = forks.fork(self._log(f"{name}-compared"), lambda: self._work.made(Folder.of(self._out(name))))
        if code != 0:
            return _tail(self._log(f"{name}-compared"))
        if made == self._made:
            shutil.rmtree(self._out(name), ignore_errors=True)
            return ""
        odd = sorted(one for one in made.keys() | self._made.keys() if made.get(one) != self._made.get(one))
        return f"these differ: {odd}: {[(made.get(one), self._made.get(one)) for one in odd[:1]]}"[:2000]

    def _tell(self, landed: list[Kill], cost: float, how: str) -> None:
        beside = f" with {len(landed) - 1} others of this run" if len(landed) > 1 else ""
        for kill in landed:
            moment = f"{kill.at:5.1f} s of {self._undisturbed_s:.1f}"
            said = f"seed {self._seed} {self._work.name:12} run {self.runs:2} {kill.kind:6} at {moment}: {kill.what}"
            print(f"{said}; {how}, cost {cost:.0f} s{beside}", flush=True)

    def _out(self, name: str) -> Path:
        return self._root / "out" / f"{self._work.name}-{name}"

    def _log(self, name: str) -> Path:
        return self._root / f"{self._work.name}-{name}.log"


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


def volleys(name: str, kinds: Sequence[str], rounds: int) -> list[list[str]]:
    """The kinds of kills of each run."""
    if name in ROADS:
        return [list(kinds) for _ in range(rounds)]
    kinds = [kind for kind in kinds if kind == "driver" or name not in IN_THE_DRIVER]
    if not kinds:
        return []
    first = list(JOBS).index(name)  # so that over all jobs there is as much of each kind
    row = list(itertools.islice(itertools.cycle(kinds), first, first + rounds))
    return [row[at : at + len(kinds)] for at in range(0, rounds, len(kinds))]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 if any result differs."""
    args = _arguments(argv)
    if "head" in args.kinds and not store_of_heads():
        raise SystemExit(NO_STORE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster goes, too
    set_environment()
    forks.preload(*PRELOADED, *(_OF_ROADS if ROADS.keys() & set(args.jobs) else ()))
    print(f"seed {args.seed}", flush=True)
    with folder(args.folder) as root:
        inputs(root, args.jobs)
        nodes = Nodes(root / "ray", lasting="head" in args.kinds)
        try:
            trials = [_trial(root, nodes, name, args) for name in args.jobs]
        finally:
            nodes.close()
    landed, runs, equal = Counter[str](), sum(one.runs for one in trials), sum(one.equal for one in trials)
    for trial in trials:
        landed += trial.landed
    counts = ", ".join(f"{landed[kind]} of a {kind}" for kind in args.kinds)
    print(f"seed {args.seed}: {landed.total()} kills ({counts}); {equal} of {runs} runs equal", flush=True)
    return int(equal < runs)


def _trial(root: Path, nodes: Nodes, name: str, args: argparse.Namespace) -> Trial:
    trial, missed = Trial(root, nodes, work_of(name), args.seed), list[str]()
    for kinds in volleys(name, args.kinds, args.rounds):
        missed += trial.disturb(kinds)
    for _ in range(_EXTRA):
        some = list(dict.fromkeys(missed))  # one of a kind
        for kind in some:
            missed.remove(kind)
        missed += trial.disturb(some) if some else []
    if missed:
        print(f"{name:12} was over too soon for {', '.join(missed)}", flush=True)
    return trial


def inputs(root: Path, names: Sequence[str]) -> None:
    for name in ROADS.keys() & set(names):
        forks.must(root / "draw.log", lambda name=name: draw(name, Folder.of(root / f"photos-{name}")))
    if jobs := [name for name in names if name in JOBS]:
        forks.must(root / "prepare.log", lambda: in_one_process(lambda: prepare(root, jobs)))


@contextlib.contextmanager
def folder(name: str | None) -> Iterator[Path]:
    """Where everything lies, and what looks for a place by the environment."""
    with contextlib.ExitStack() as stack:
        made = name or stack.enter_context(tempfile.TemporaryDirectory(prefix="rc-", ignore_cleanup_errors=True))
        root = Path(made)
        for each in ("ray", "tmp", "out"):
            (root / each).mkdir(parents=True, exist_ok=True)
        os.environ |= {"RAY_TMPDIR": str(root), "TMPDIR": str(root / "tmp"), "RETRIEVAL_CACHE": str(root / "cache")}
        tempfile.tempdir = None  # looked for anew
        yield root


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=NAMES, default=NAMES, help="none: all")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS[:3])
    parser.add_argument("--rounds", type=int, default=5, help="kills: of each kind for a pipeline, in all for a job")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--folder", help="an empty one with a short name, which is kept; none: one that goes")
    return parser.parse_args(argv)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # libraries that were only loaded have much to say at a proper end
