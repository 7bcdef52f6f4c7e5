"""How far two versions agree on the same queries: counts that add up, and the small files that they are kept in.

`agreement/<version>-<candidate>-<replica>.json` in the workspace, one for each pair and replica, replaced whole.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.artifacts.folder import Folder

FOLDER = "agreement"

DEPTH = 10
"""How many of the first are compared."""

Ranked = Sequence[tuple[str, float]]
"""(image_id, score), best first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Sums over queries; `+` adds those of others."""

    queries: int = 0
    same_first: int = 0
    """Queries for which both put the same image first."""
    overlap: float = 0.0
    """Of the first ten, the share that both have; summed."""
    score_difference: float = 0.0
    """The candidate's best score less the other's; summed."""

    @classmethod
    def of(cls, ours: Ranked, theirs: Ranked) -> Agreement:
        """Of one query. Args: ours: of the version that answers. theirs: of the candidate. Both not empty."""
        first, second = ({image_id for image_id, _ in one[:DEPTH]} for one in (ours, theirs))
        return cls(
            queries=1,
            same_first=int(ours[0][0] == theirs[0][0]),
            overlap=len(first & second) / max(len(first), len(second)),
            score_difference=theirs[0][1] - ours[0][1],
        )

    def __add__(self, other: Agreement) -> Agreement:
        mine, its = dataclasses.asdict(self), dataclasses.asdict(other)
        return Agreement(**{name: mine[name] + its[name] for name in mine})

    def shares(self) -> dict[str, float]:
        """Of a query, on average; empty without any."""
        if not self.queries:
            return {}
        return {
            "queries": float(self.queries),
            "same_first": self.same_first / self.queries,
            f"overlap@{DEPTH}": self.overlap / self.queries,
            "score_difference": self.score_difference / self.queries,
        }


def write_agreement(workspace: Folder, version: str, candidate: str, replica: str, counts: Agreement) -> None:
    """Replace the counts of one replica. Raises: OSError if the workspace cannot be written to."""
    name = f"{version}-{candidate}-{re.sub('[^A-Za-z0-9]+', '_', replica)}.json"
    (workspace / FOLDER).write_json(name, dataclasses.asdict(counts))


def read_agreements(workspace: Folder) -> dict[tuple[str, str], Agreement]:
    """(version, candidate) -> what all replicas counted.

    Raises: ValueError for a file that is none of ours.
    """
    found: dict[tuple[str, str], Agreement] = {}
    for name in (workspace / FOLDER).list():
        named = re.fullmatch(r"([0-9a-f]{12})-([0-9a-f]{12})-\w+\.json", name)
        try:
            if named is None:
                raise TypeError("its name is none of a count's")
            counts = Agreement(**(workspace / FOLDER).read_json(name))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{workspace}/{FOLDER}/{name} holds no counts of agreement ({error}). Remove it."
            ) from error
        pair = named[1], named[2]
        found[pair] = found.get(pair, Agreement()) + counts
    return found
