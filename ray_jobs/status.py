"""Status: what lies in a workspace and what is going on in it.

    python -m ray_jobs.status --workspace W
    python -m ray_jobs.status --workspace s3://BUCKET/faces --watch
    python -m ray_jobs.status --workspace W --json

Which steps are sealed, which run and how far they are, which stopped, failed, or were left by a job that is gone; how
many photos were left out and why; which versions there are, and which is served; what takes how much room. It reads
the workspace only, from any machine that can: no cluster is asked or started, and a job whose node is lost is told too.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ray_jobs.runtime.command import command
from ray_jobs.runtime.news.quiet import set_up_logging
from ray_jobs.runtime.survey import Survey, Work, survey
from retrieval.artifacts.folder import Folder

_MOST_TO_DO_FIRST = ("running", "failed", "damaged", "stopped", "stale", "sealed")
_CLEAR = "\033[2J\033[H"


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusConfig:
    """Look at a workspace."""

    workspace: str
    """Folder or URI that jobs write to."""
    watch: bool = False
    """Look again and again, until Ctrl-C."""
    every: float = 5.0
    """Seconds between two looks of --watch."""
    json: bool = False
    """Print JSON, one object a look, for programs."""

    def __post_init__(self) -> None:
        if not 0 < self.every <= 3600:
            raise ValueError(f"every is {self.every}, expected seconds above 0, up to 3600.")


def main(cfg: StatusConfig) -> Survey:
    """Look, and print what there is. Returns what was seen last.

    Raises: ValueError if there is nothing at the workspace.
    """
    set_up_logging()
    workspace = Folder.of(cfg.workspace)
    while True:
        seen = survey(workspace)
        if cfg.json:
            print(json.dumps(as_json(seen), sort_keys=True, separators=(",", ":")), flush=True)
        else:
            print((_CLEAR if cfg.watch else "") + told(seen), flush=True)
        if not cfg.watch:
            return seen
        try:
            time.sleep(cfg.every)
        except KeyboardInterrupt:
            return seen


def as_json(seen: Survey) -> dict[str, Any]:
    """What was seen, as JSON has it."""
    return dataclasses.asdict(seen) | {"counts": seen.counts}


def told(seen: Survey) -> str:
    """What was seen, in lines: first what somebody may have to do something about."""
    counts = seen.counts
    said = ", ".join(f"{counts[state]} {state}" for state in _MOST_TO_DO_FIRST if state in counts) or "no step yet"
    lines = [f"{seen.workspace}  {seen.at}", f"steps: {said}; {size(seen.bytes)} in {seen.files:,} files"]
    for one in sorted(seen.work, key=lambda one: (_MOST_TO_DO_FIRST.index(one.state), one.name)):
        lines += _of_work(one, seen.at)
    for version in reversed(seen.versions):
        mark = "served" if version.served else "version"
        gone = f"  cannot be gone back to: {', '.join(version.missing)} not there" if version.missing else ""
        lines.append(f"  {mark:<8} {version.name}  published {version.at or 'unknown when'}{gone}")
    lines += [f"  {'other':<8} {name}  {size(taken)}" for name, taken in sorted(seen.other.items())]
    if seen.untold:
        lines.append(f"  MLflow could not be told {seen.untold:,} notes yet: the next run here tells them")
    return "\n".join(lines)


def _of_work(one: Work, at: str) -> Iterator[str]:
    facts = [one.kind if one.kind not in ("", one.name.partition("/")[0]) else "", size(one.bytes)]
    if one.taken is not None:
        facts.append(f"{one.kept:,} of {one.taken:,} kept")
    if one.pulse is not None and one.state == "running":
        pulse = one.pulse
        far = f"{pulse.doing} {pulse.done:,} of {pulse.total:,}" if pulse.total else pulse.doing or "starting"
        silent = pulse.silent_for(datetime.fromisoformat(at))
        facts.append(
            f"{pulse.job} on {pulse.node}, process {pulse.process}: {far}; heard of {max(0, silent):.0f} s ago"
        )
    if one.served:
        facts.append("served")
    yield f"  {one.state:<8} {one.name}  {'  '.join(fact for fact in facts if fact)}"
    if one.rejected:
        reasons = sorted(one.rejected.items(), key=lambda item: (-item[1], item[0]))
        yield f"  {'':<8} left out: {', '.join(f'{count:,} {reason}' for reason, count in reasons)}"
    if one.why:
        yield f"  {'':<8} {one.why}"


def size(num: int) -> str:
    """Bytes in a unit that fits: 512 B, 1.5 kB, 3.2 GB."""
    if num < 1000:
        return f"{num} B"
    value, units = num / 1000, ["kB", "MB", "GB", "TB", "PB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}"


if __name__ == "__main__":
    command(StatusConfig, main, __doc__)
