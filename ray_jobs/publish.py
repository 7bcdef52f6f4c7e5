"""Publish: which version a workspace serves. List them, go back, go to any, or publish folders made step by step.

    python -m ray_jobs.publish --workspace W --list
    python -m ray_jobs.publish --workspace W --back
    python -m ray_jobs.publish --workspace W --to 3f9a0c11d2e4
    python -m ray_jobs.publish --workspace W --champion faces
    python -m ray_jobs.publish --workspace W --collection C --model M --index I

A version is a collection, a model and an index that were made from each other. A pipeline publishes what it made; a
running service takes it up by itself. Only a small file is written, so going back takes no longer than a look at the
folders, and no cluster is started.
"""

from __future__ import annotations

from dataclasses import dataclass

from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_sealed
from ray_jobs.runtime.news.quiet import set_up_logging
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import PREVIOUS, Published, go_to, history, publish

_TRIPLE = ("collection", "model", "index")
_BESIDE = ("report", "people", "features")


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishConfig:
    """Choose what a workspace serves. Give one of: list, back, to, champion, or a collection, a model and an index."""

    workspace: str
    """Folder or URI that the pipeline wrote: the one that holds CURRENT.json."""
    list: bool = False
    """Print the versions that it remembers, the oldest first, and change nothing."""
    back: bool = False
    """Serve the version that was published before the current one again."""
    to: str | None = None
    """Serve this version again: its name, or the first digits of it, as --list prints it."""
    champion: str | None = None
    """Serve the version whose model is the champion of this name in MLflow's registry (the name is the pipeline's
    --model-name)."""
    tracking_uri: str | None = None
    """MLflow's store, for --champion. Default: MLFLOW_TRACKING_URI, else the workspace's own."""
    collection: str | None = None
    """Folder or URI of a sealed collection to publish, with --model and --index that were made from it."""
    model: str | None = None
    """Folder or URI of its model."""
    index: str | None = None
    """Folder or URI of its index."""
    report: str | None = None
    """Folder or URI of a report that measured the model, if there is one: it says what scores mean."""
    people: str | None = None
    """Folder or URI of the groups of the index's photos, if there are any."""
    features: str | None = None
    """Folder or URI of local features of the collection's photos (python -m ray_jobs.describe), if there are any: the
    service puts results in order by them."""

    def __post_init__(self) -> None:
        given = [name for name in _TRIPLE if getattr(self, name) is not None]
        asked = [name for name in ("list", "back", "to", "champion") if getattr(self, name) not in (None, False)]
        if given and len(given) < len(_TRIPLE):
            missing = [f"--{name}" for name in _TRIPLE if name not in given]
            raise ValueError(f"A version is a collection, a model and an index: {' and '.join(missing)} missing.")
        if not given and any(getattr(self, name) is not None for name in _BESIDE):
            raise ValueError("--report, --people and --features stand beside --collection, --model and --index.")
        if len(asked) + bool(given) != 1:
            raise ValueError("Give one of --list, --back, --to, --champion, or --collection, --model and --index.")


def main(cfg: PublishConfig) -> str:
    """Do it, and print the versions. Returns the name of the version that is served now.

    Raises: ValueError if the workspace has no such version, or its folders are not what was published.
    """
    set_up_logging()
    workspace = Folder.of(cfg.workspace)
    if cfg.index is not None:
        places = {kind: getattr(cfg, kind) for kind in (*_TRIPLE, *_BESIDE)}
        named = {kind: place for kind, place in places.items() if place is not None}
        must_be_sealed(**named)
        publish(workspace, **{kind: Folder.of(place) for kind, place in named.items()})
    elif cfg.champion is not None:
        go_to(workspace, _of_champion(workspace, cfg.champion, cfg.tracking_uri))
    elif not cfg.list:
        go_to(workspace, PREVIOUS if cfg.back else str(cfg.to))
    current, kept = history(workspace)
    print(told(current, kept), flush=True)
    return current.version


def told(current: Published, kept: list[Published]) -> str:
    """A line a version, the oldest first; a star before the current one."""
    lines = [
        f"{'*' if one.version == current.version else ' '} {one.version}  {one.at or 'unknown when':25}  "
        f"model {one.paths['model']}  index {one.paths['index']}"
        for one in kept
    ]
    return "\n".join(lines)


def _of_champion(workspace: Folder, name: str, tracking_uri: str | None) -> str:
    """The newest version whose model is the champion. Raises: ValueError if there is no champion or no such version."""
    from ray_jobs.runtime.tracking.registry import champion_fingerprint
    from ray_jobs.runtime.tracking.store import store_uri

    _, kept = history(workspace)
    wanted = champion_fingerprint(name, uri=store_uri(tracking_uri, workspace))
    found = [one.version for one in kept if one.fingerprints["model"] == wanted]
    if not found:
        raise ValueError(
            f"The champion of '{name}' is the model {wanted[:12]}, and no version that {workspace} remembers has it. "
            f"Make a collection's index with it and publish that: --collection, --model and --index."
        )
    return found[-1]


if __name__ == "__main__":
    command(PublishConfig, main, __doc__)
