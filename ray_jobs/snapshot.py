"""Snapshot: what a workspace serves, kept as it is; and one that was kept, checked or put back.

    python -m ray_jobs.snapshot --workspace W
    python -m ray_jobs.snapshot --workspace W --list
    python -m ray_jobs.snapshot --workspace W --verify 2026-03-01T12-00-00-000000Z
    python -m ray_jobs.snapshot --workspace W --restore 2026-03-01T12-00-00-000000Z

A snapshot holds which version is current, and every change since that was sealed: photos added, images deleted, people
put right. It may be taken while the service runs, as `POST /v1/admin/snapshot` does. To put one back, stop the service
first; what is there then is kept as another snapshot before. No cluster is started.
"""

from __future__ import annotations

from dataclasses import dataclass

from ray_jobs.runtime.command import command
from ray_jobs.runtime.news.quiet import set_up_logging
from retrieval.artifacts.folder import Folder
from retrieval.live.snapshots.snapshot import Snapshot, check, restore, snapshots, take


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotConfig:
    """Keep what is served, or give one of: list, verify, restore."""

    workspace: str
    """Folder that the pipeline wrote and the service serves, on a disk of this host."""
    list: bool = False
    """Print the snapshots there are, the oldest first."""
    verify: str | None = None
    """Check this snapshot: its files, its database, and that the version's folders are still there."""
    restore: str | None = None
    """Put this snapshot back. Stop the service first."""

    def __post_init__(self) -> None:
        if (self.list is True) + (self.verify is not None) + (self.restore is not None) > 1:
            raise ValueError("Give one of --list, --verify and --restore; none of them takes a snapshot.")


def main(cfg: SnapshotConfig) -> str:
    """Do it, and print what was done. Returns the name of the snapshot that was taken, checked or put back; of the
    newest where they are listed, or nothing.

    Raises: ValueError if there is no such snapshot, or it is damaged.
    """
    set_up_logging()
    workspace = Folder.of(cfg.workspace)
    if cfg.list:
        found = snapshots(workspace)
        print("\n".join(told(one) for one in found) or "no snapshots", flush=True)
        return found[-1].name if found else ""
    if cfg.verify is not None:
        version = check(workspace, cfg.verify)
        print(f"{cfg.verify} is whole: version {version.version}", flush=True)
        return cfg.verify
    if cfg.restore is not None:
        kept = restore(workspace, cfg.restore)
        print(f"{cfg.restore} was put back; what was there before is kept as {kept.name}", flush=True)
        return cfg.restore
    made = take(workspace)
    print(told(made), flush=True)
    return made.name


def told(one: Snapshot) -> str:
    """One line."""
    return f"{one.name}  {one.num_bytes / 1e6:9.3f} MB  {one.path}"


if __name__ == "__main__":
    command(SnapshotConfig, main, __doc__)
