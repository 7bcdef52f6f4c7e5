"""Careless changes, made one at a time: which of them does no test notice?

    make mutants                                        # all of them, about half an hour on 2 cores
    python tests/mutants/run.py search training         # those of some rooms
    python tests/mutants/run.py search --grep ties      # those whose `why` or `old` holds a word

A file here is a room's list (TOML). A mutant replaces `old`, which stands in `file` exactly once, by `new`, and names
the `tests` that should fail. One that may live says why in `survives`; where that is given and a test fails all the
same, the list is wrong and says so. The changes are made in a copy of the tree: nothing here is touched.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT_S = 600
# Loaded once, before the first copy runs: each run is a fork, and does not wait for them again.
PRELOADED = ("torch", "torchvision", "numpy", "scipy.spatial", "pyarrow.parquet", "faiss", "cv2", "pycolmap")
PRELOADED += ("matplotlib.figure", "safetensors.torch", "PIL.Image", "sklearn", "pytest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """One change. `tests` are files or test ids, `why` says what harm it would do."""

    room: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str
    survives: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.why}"


def read_mutants(rooms: list[str] | None = None) -> list[Mutant]:
    """All mutants of the lists, or those of some rooms.

    Raises: ValueError for a room without a list.
    """
    found = []
    for name in rooms or sorted(path.stem for path in HERE.glob("*.toml")):
        path = HERE / f"{name}.toml"
        if not path.exists():
            known = ", ".join(sorted(other.stem for other in HERE.glob("*.toml")))
            raise ValueError(f"There are no mutants of '{name}'. Choose among: {known}.")
        for row in tomllib.loads(path.read_text())["mutant"]:
            found.append(Mutant(room=name, **{**row, "tests": tuple(row["tests"])}))
    return found


def stale(mutant: Mutant, root: Path = ROOT) -> str:
    """Why the mutant cannot be made any more, or nothing."""
    path = root / mutant.file
    if not path.exists():
        return f"{mutant.file} is not there"
    times = path.read_text().count(mutant.old)
    if times != 1:
        return f"{mutant.file} holds this {times} times, not once: {mutant.old!r}"
    missing = [name for name in mutant.tests if not is_there(name, root)]
    return f"no test {missing[0]}" if missing else ""


def is_there(test: str, root: Path) -> bool:
    """Whether there is such a file or, where the name goes on after `::`, such a function in it."""
    file, _, name = test.partition("::")
    path = root / file
    return path.exists() and (not name or f"def {name.partition('[')[0]}(" in path.read_text())


def run_tests(tests: tuple[str, ...], folder: str, log: str) -> int:
    """pytest's exit code in the copy, from a fork of this process; 124 where it took too long."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.path[0] = folder
        import pytest

        code = 70
        try:
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-m", "not network", *tests]))
        finally:
            os._exit(code)
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def try_out(todo: multiprocessing.Queue, results: multiprocessing.Queue, room: str) -> None:
    """A worker: its own copy of the tree, one mutant after another."""
    for name in PRELOADED:
        __import__(name)
    folder = f"{room}/{os.getpid()}"
    copy_tree(folder)
    while (item := todo.get()) is not None:
        number, mutant = item
        path = Path(folder, mutant.file)
        whole = path.read_text()
        path.write_text(whole.replace(mutant.old, mutant.new))
        started = time.monotonic()
        code = run_tests(mutant.tests, folder, f"{folder}.log")
        path.write_text(whole)
        results.put((number, code, time.monotonic() - started))


def copy_tree(folder: str) -> None:
    """The files that git knows or would take on, and the environment by a link."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    if (ROOT / ".venv").exists():
        Path(folder, ".venv").symlink_to(ROOT / ".venv")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", help="lists to try; none: all")
    parser.add_argument("--grep", default="", help="only mutants whose why or old holds this")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many: go on with a run that ended")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    options = parser.parse_args()
    mutants = [m for m in read_mutants(options.rooms) if options.grep in m.why or options.grep in m.old]
    mutants = mutants[options.skip :]
    if rotten := [f"  {m}\n    {reason}" for m in mutants if (reason := stale(m))]:
        print("These cannot be made any more; mend the lists:", *rotten, sep="\n")
        return 2
    # As tests/conftest.py does, before anything heavy is loaded.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    os.environ["MPLBACKEND"] = "Agg"
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory(prefix="mutants-") as room:
        context = multiprocessing.get_context("spawn")
        todo, results = context.Queue(), context.Queue()
        for item in enumerate(mutants):
            todo.put(item)
        workers = [
            context.Process(target=try_out, args=(todo, results, room), daemon=False) for _ in range(options.jobs)
        ]
        for worker in workers:
            todo.put(None)
            worker.start()
        lived: dict[int, bool] = {}
        for _ in mutants:
            number, code, seconds = next_of(results, workers)
            lived[number] = code == 0
            word = "lived" if code == 0 else "hung" if code == 124 else "noticed"
            if code not in (0, 1, 2, 124):
                word = f"broken (pytest {code})"  # no test ran: the list names none
            print(f"{len(lived):4}/{len(mutants)} {word:8} {seconds:5.1f} s  {mutants[number]}", flush=True)
        for worker in workers:
            worker.join()
    return tell(mutants, lived)


def next_of(results: Any, workers: list[Any]) -> tuple[int, int, float]:
    """The next result. Raises: RuntimeError if a worker is gone, whose mutant would be waited for in vain."""
    while True:
        try:
            return results.get(timeout=5)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("A worker died while it tried a mutant; run the list again.") from None


def tell(mutants: list[Mutant], lived: dict[int, bool]) -> int:
    """The sums by room, and each survivor. Returns 1 where one lived without a reason, or has a reason and died."""
    total, noticed = Counter(m.room for m in mutants), Counter()
    unexplained, outdated = [], []
    for number, mutant in enumerate(mutants):
        noticed[mutant.room] += not lived[number]
        if lived[number] and not mutant.survives:
            unexplained.append(f"  {mutant}")
        if not lived[number] and mutant.survives:
            outdated.append(f"  {mutant}")
    print()
    for room in total:
        print(f"{room:12} {noticed[room]:4} of {total[room]:4} noticed, {noticed[room] / total[room]:.0%}")
    print(f"{'all':12} {sum(noticed.values()):4} of {len(mutants):4}")
    if unexplained:
        print("\nNo test noticed:", *unexplained, sep="\n")
    if explained := [f"  {m}\n    {m.survives}" for n, m in enumerate(mutants) if lived[n] and m.survives]:
        print("\nMay live:", *explained, sep="\n")
    if outdated:
        print("\nSaid to live, and noticed: take out `survives` of", *outdated, sep="\n")
    return 1 if unexplained or outdated else 0


if __name__ == "__main__":
    sys.exit(main())
