"""How long each command takes to say what it does, or that a flag is misspelt, beside Python alone and `import torch`.

    python benchmarks/bench_help.py [--repeats 5]

All in one run, the kinds in turn, the fastest of each: ratios, since other work on the machine shifts the seconds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("ingest", "reconstruct", "train", "whiten", "embed", "build_index", "evaluate", "benchmark", "pipeline")
GOAL = 1.5
"""Seconds, idle, that an answer may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How often."""

    repeats: int = 5
    """Times that each is started; the fastest counts."""


def main(cfg: Config) -> None:
    """Print the table."""
    lines = {"python -c pass": ["-c", "pass"], "python -c 'import torch'": ["-c", "import torch"]}
    for name in (*(f"ray_jobs.{command}" for command in COMMANDS), "serve.demo"):
        words = ["-m", name] + (["faces"] if name.endswith("pipeline") else [])
        lines |= {f"{name} --help": [*words, "--help"], f"{name} --wrong-flag": [*words, "--wrong-flag"]}
    best = {name: min(seconds(words) for _ in range(cfg.repeats)) for name, words in lines.items()}
    empty, torch = best["python -c pass"], best["python -c 'import torch'"]
    print(f"{'':38s} {'s':>6s} {'x empty':>8s} {'of torch':>8s}")
    for name, took in best.items():
        print(f"{name:38s} {took:6.2f} {took / empty:8.1f} {took / torch:8.2f}{'' if took < GOAL else '  slow'}")


def seconds(words: list[str]) -> float:
    """One process, from start to end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=False)
    return time.perf_counter() - started


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
