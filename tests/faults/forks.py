"""Work in processes of its own, forked from one that has loaded everything: a start costs nothing."""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import ray_jobs
import retrieval

# Loaded once, before the first run. Nothing of them is used here.
PRELOADED = ("torch", "torchvision", "faiss", "cv2", "pycolmap", "scipy.sparse.csgraph", "matplotlib.figure")
PRELOADED += ("pyarrow.parquet", "safetensors.torch", "onnxruntime", "PIL.Image", "sklearn", "pytest")


def preload(*more: str) -> None:
    """What jobs import, once: each run is a fork of this process."""
    for name in (*PRELOADED, *more):
        __import__(name)
    for package in (ray_jobs, retrieval):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith("ray_jobs.runtime") and not module.name.endswith("__main__"):
                __import__(module.name)
    gc.freeze()  # no page of what is loaded is copied for the collector's sake


def begin(log: Path, work: Callable[[], Any]) -> int:
    """Start work in a process of its own that writes to a log. Returns its process id; see `ended`."""
    pid = os.fork()
    if pid == 0:
        _child(log, log.with_suffix(".json"), work)
    return pid


def ended(log: Path, status: int) -> tuple[int, Any]:
    """Of a process that `waitpid` gave back: its exit code, negative for a signal, and what `work` returned."""
    code = os.waitstatus_to_exitcode(status)
    return code, json.loads(log.with_suffix(".json").read_text()) if code == 0 else None


def fork(log: Path, work: Callable[[], Any]) -> tuple[int, Any]:
    """Do work in a process of its own that writes to a log. Returns its exit code, and what `work` returned."""
    return ended(log, os.waitpid(begin(log, work), 0)[1])


def must(log: Path, work: Callable[[], Any]) -> Any:
    """Do it in a process of its own. Returns what it returned. Raises: SystemExit if it fails."""
    code, made = fork(log, work)
    if code != 0:
        raise SystemExit(f"It does not work undisturbed:\n{log.read_text()[-3000:]}")
    return made


def several(work: Sequence[tuple[int, Callable[[], str]]], at_once: int) -> Iterator[tuple[int, str]]:
    """Each piece of work in a process of its own, several at once. Yields its number and what it returned."""
    waiting, running = list(reversed(work)), {}
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, one = waiting.pop()
                running[begin(Path(folder) / f"{number}.log", one)] = number
            pid, status = os.waitpid(-1, 0)
            number = running.pop(pid)
            log = Path(folder) / f"{number}.log"
            code, said = ended(log, status)
            yield number, said if code == 0 else log.read_text()[-700:]


def _child(log: Path, answer: Path, work: Callable[[], Any]) -> NoReturn:
    code = 1
    try:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        answer.write_text(json.dumps(work()))
        code = 0
    except BaseException:  # noqa: BLE001 (told by the exit code and in the log)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)
