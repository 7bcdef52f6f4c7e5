"""Ask a whole service with what its OpenAPI document says it takes, and with what it does not, some thousand times.

    python benchmarks/fuzz_api.py               # 10,000 requests and photos, to a small gallery that is drawn for it
    python benchmarks/fuzz_api.py --requests 1000 --hostile 100 --seed 7

Then search with 10,000 damaged photos. A status that the document does not name, a body of another form, a 500, no
answer at all, and a photo that takes longer than its deadline are wrong: it ends with 1. Afterwards a good photo must
be answered, and the memory of the service is told.
"""

from __future__ import annotations

import logging
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serve.client import Client
from tests.support.fuzzing import fuzz
from tests.support.hostile import mutated
from tests.support.listening import listening
from tests.support.workspace import make_workspace

logging.basicConfig(level=logging.INFO, format="%(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)
logger = logging.getLogger("fuzz_api")

_DECLARED = {200, 400, 413, 415, 422}  # what is said of a photo: nothing of 500 and above
_LONGEST_S = 6.0  # the deadline of a photo is 5 s


@dataclass(frozen=True, kw_only=True)
class Config:
    """How often, and beginning where."""

    requests: int = 16_000
    """At most, spread evenly over the operations; some have fewer cases than that."""
    hostile: int = 10_000
    """Damaged photos that are searched with after that, one after another."""
    seed: int = 0
    """Of the photos that are mixed in."""


def main(cfg: Config) -> int:
    """Returns 1 if anything was wrong."""
    with tempfile.TemporaryDirectory() as root:
        made = make_workspace(Path(root), num_identities=4)
        good = [path.read_bytes() for path in made.photos.values()]
        photos = [*good[:4], *mutated(200, cfg.seed)]
        with listening(workspace=str(made.folder), max_body_bytes=400_000, max_batch_bytes=1_000_000) as at:
            operations = sum(len(item) for item in at.api.openapi()["paths"].values())
            before, started = _resident(), time.perf_counter()
            report = fuzz(at.address, max(1, cfg.requests // operations), photos, cfg.seed)
            took, after = time.perf_counter() - started, _resident()
            told = searched(at.address, mutated(cfg.hostile, cfg.seed + 1), report.wrong)
            last = _resident()
            with Client(at.address) as client:
                well = client.readyz().status == "ok" and bool(client.search(good[0], k=1).results)
    statuses: Counter[int] = Counter()
    for (name, status), num in sorted(report.statuses.items()):
        logger.info("%6d  %d  %s", num, status, name)
        statuses[status] += num
    logger.info(
        "%d requests to %d operations in %.0f s: %s", report.num, operations, took, dict(sorted(statuses.items()))
    )
    logger.info("%d damaged photos: %s", cfg.hostile, told)
    logger.info(
        "resident memory %.0f MB before, %.0f MB after requests, %.0f MB after photos, %.0f MB at most",
        *(before, after, last, _peak()),
    )
    for line in sorted(set(report.wrong)):
        logger.info("WRONG %s", line)
    logger.info("%d wrong; %s", len(report.wrong), "a good photo is answered" if well else "NO ANSWER TO A GOOD PHOTO")
    return int(bool(report.wrong) or not well)


def searched(address: str, photos: Iterator[bytes], wrong: list[str]) -> str:
    """Search with each photo. Adds to `wrong` what is no answer that the document declares, and what takes too long."""
    statuses: Counter[int] = Counter()
    longest, started = 0.0, time.perf_counter()
    with httpx.Client(base_url=address, timeout=120) as client:
        for number, photo in enumerate(photos):
            asked = time.perf_counter()
            answer = client.post("/v1/search?k=1", content=photo, headers={"Content-Type": "image/jpeg"})
            took = time.perf_counter() - asked
            statuses[answer.status_code] += 1
            longest = max(longest, took)
            if answer.status_code not in _DECLARED or took > _LONGEST_S:
                wrong.append(f"damaged photo {number}: {answer.status_code} after {took:.1f} s")
    return (
        f"{dict(sorted(statuses.items()))}, the longest {longest:.2f} s, {time.perf_counter() - started:.0f} s in all"
    )


def _resident() -> float:
    """MB, of this process, which the service runs in."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
