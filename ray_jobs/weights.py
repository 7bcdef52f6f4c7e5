"""Weights: published networks that this project knows by their bytes: what is here, under which licence; fetch them.

    python -m ray_jobs.weights                              # the table: name, size, licence, where it was found
    python -m ray_jobs.weights --fetch sface yunet          # into $RETRIEVAL_WEIGHTS, else a folder in your cache
    python -m ray_jobs.weights --licence sface

A file is used only if its sha256 is the published one. Where nothing may be downloaded, set RETRIEVAL_DOWNLOADS=off:
every command then says what to copy where.
"""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.runtime.command import command
from ray_jobs.runtime.news.progress import watch
from ray_jobs.runtime.news.quiet import set_up_logging
from retrieval.models import known_weights
from retrieval.models.known_weights import KNOWN, KnownWeights, known


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsConfig:
    """List known weights, fetch some, or say under which licence they are."""

    fetch: tuple[str, ...] = ()
    """Names of weights to fetch, unless they are here already."""
    licence: tuple[str, ...] = ()
    """Names of weights of which to print what is known: licence, training data, where they are published."""
    to: str = ""
    """Folder to fetch into; empty: $RETRIEVAL_WEIGHTS, else retrieval/weights in the user's cache."""
    downloads: bool = True
    """Whether anything may be downloaded; RETRIEVAL_DOWNLOADS=off forbids it to every command."""

    def __post_init__(self) -> None:
        for name in (*self.fetch, *self.licence):
            known(name)


def main(cfg: WeightsConfig) -> dict[str, Path]:
    """Returns the files of what was to be fetched, by name.

    Raises: ValueError for a download that fails or is forbidden, with what to do instead.
    """
    set_up_logging()
    if not cfg.downloads:
        os.environ[known_weights.DOWNLOADS] = "off"
    folder = Path(cfg.to).expanduser() if cfg.to else known_weights.weights_folder()
    found = {name: _here_or_fetched(name, folder, anywhere=not cfg.to) for name in cfg.fetch}
    for name, place in found.items():
        print(f"{name}: {place}\n{_terms(KNOWN[name])}", flush=True)
    for name in cfg.licence:
        print(f"{name}\n{_terms(KNOWN[name])}", flush=True)
    if not cfg.fetch and not cfg.licence:
        print(table(), flush=True)
    return found


def table() -> str:
    """All known weights, a line each, and how to get what is not here."""
    rows = [("name", "MB", "licence", "where")]
    rows += [(name, f"{one.num_bytes / 1e6:.1f}", one.licence, _where(name)) for name, one in KNOWN.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip() for row in rows]
    return "\n".join(
        [*lines, "", f"Looked in {known_weights.weights_folder()} and installed packages. Get one with --fetch NAME."]
    )


def _where(name: str) -> str:
    try:
        place = known_weights.find(name)
    except ValueError as error:
        return f"not usable: {error}"
    return str(place) if place else "not here"


def _here_or_fetched(name: str, folder: Path, *, anywhere: bool) -> Path:
    """Args: anywhere: a file found elsewhere than in `folder` is as good."""
    if anywhere and (place := known_weights.find(name)) is not None:
        return place
    says = f"download {name}, KiB"
    with watch(says, known(name).num_bytes >> 10) as step:
        return known_weights.fetch(name, folder, lambda what, done, total: step.heard(0, says, done >> 10, total >> 10))


def _terms(weights: KnownWeights) -> str:
    """What a user should know before building on them."""
    told = {
        "what": weights.what,
        "licence": weights.licence,
        "trained on": weights.trained_on,
        "published": weights.published,
        "file": f"{weights.file}, {weights.num_bytes:,} bytes",
        "sha256": weights.sha256,
    }
    return "\n".join(
        textwrap.fill(text, 100, initial_indent=f"  {name:<11}", subsequent_indent=" " * 13, break_on_hyphens=False)
        for name, text in told.items()
    )


if __name__ == "__main__":
    command(WeightsConfig, main, __doc__)
