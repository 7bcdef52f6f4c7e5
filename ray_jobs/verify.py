"""Verify: whether two photos show the same person, by what a workspace published: same, different or cannot tell.

    python -m ray_jobs.verify A.jpg B.jpg --workspace W
    python -m ray_jobs.verify A.jpg B.jpg --workspace W --far 0.0001

Both photos go through the kernel that made the gallery. The threshold is the one at the stated false-accept rate, as
evaluate measured it on labelled people whom the model was not trained on; without such, a known network's own. Nothing
is put into the workspace, and no cluster is started.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_there
from ray_jobs.runtime.news.quiet import set_up_logging
from retrieval.artifacts.calibration import FARS, MANY, Calibration
from retrieval.artifacts.collection import detector_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import Pair
from retrieval.models.settings import Device

if TYPE_CHECKING:
    from retrieval.models.queries.verification import Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """Compare two photos."""

    first: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FIRST")]
    """One photo: a path or URI, in any format that ingest reads. Its best face is looked at."""
    second: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SECOND")]
    """The other photo."""
    workspace: str
    """Folder or URI that the pipeline wrote: whose model and calibration are used."""
    far: float = 1e-3
    """The false-accept rate: of pairs of two different people, the share that may be called the same. 0.01, 0.001 or
    0.0001."""
    prior: float = 0.5
    """The share of the pairs you ask about that show the same person, as far as you know: the probability depends on
    it, the answer does not."""
    device: Device = "auto"
    """Where the model runs: auto, cpu or cuda."""

    def __post_init__(self) -> None:
        if self.far not in FARS:
            raise ValueError(f"far is {self.far:g}, expected one of: {', '.join(f'{far:g}' for far in FARS)}.")
        if not 0 < self.prior < 1:
            raise ValueError(f"prior is {self.prior:g}, expected a share between 0 and 1, for example 0.5.")


def main(cfg: VerifyConfig) -> Verdict:
    """Compare, and print the answer.

    Raises: ValueError if a photo is not there, or the workspace has published nothing.
    """
    for photo in (cfg.first, cfg.second):
        must_be_there(photo, "Name two photos.")
    pair = Pair.open(cfg.workspace)
    set_up_logging()

    from retrieval.images import pixels
    from retrieval.models.embedder import Embedder
    from retrieval.models.queries.reader import PhotoReader
    from retrieval.models.queries.verification import verify
    from retrieval.models.spec import known_threshold

    pixels.limit_threads(1)
    embedder = Embedder(pair.model.uri, device=cfg.device)
    calibration = pair.calibration()
    verdict = verify(
        _read(cfg.first),
        _read(cfg.second),
        PhotoReader(embedder, detector_of(pair.model) or detector_of(pair.collection)),
        far=cfg.far,
        calibration=calibration,
        known=known_threshold(pair.model),
        names=(cfg.first, cfg.second),
    )
    print(told(verdict, calibration, cfg.prior), flush=True)
    return verdict


def told(verdict: Verdict, calibration: Calibration | None, prior: float = 0.5) -> str:
    """The answer as a few lines: what, how sure, why."""
    lines = [verdict.answer]
    if verdict.score is not None:
        lines.append(f"  score        {verdict.score:.3f}")
        if calibration is not None and (told := calibration.probability(verdict.score, prior)) is not None:
            lines.append(f"  probability  {told:.3g} that both show the same, where {prior:g} of all pairs do")
        if verdict.threshold is not None:
            at = f" at a false-accept rate of {verdict.far:g}" if verdict.promised else ""
            lines.append(f"  threshold    {verdict.threshold:.3f}{at}")
        if calibration is not None and calibration.curve is not None:
            seen = f"{calibration.people:,} labelled {MANY[calibration.subject]}, {calibration.photos:,} photos"
            lines.append(f"  measured on  {seen}")
    return "\n".join([*lines, f"  why          {verdict.why}"])


def _read(photo: str) -> bytes:
    where = Folder.of(photo)
    return where.parent.read_bytes(where.name)


if __name__ == "__main__":
    command(VerifyConfig, main, __doc__)
