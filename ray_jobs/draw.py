"""The demo's photographs, drawn by the cluster."""

from __future__ import annotations

from pathlib import Path

from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.session import on_cluster
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.progress import Progress, silent
from retrieval.artifacts.writing.owner import sole_writer
from retrieval.data.demo.settings import DemoConfig, SceneConfig

_DEMO_PART = 100  # photos drawn by one task


def draw_faces(demo: DemoConfig, out: Folder) -> str:
    """The demo's photos, drawn by tasks in ranges; the identity file, written last, says that they are all there."""
    if not out.is_local:
        raise ValueError(f"The demo draws its faces on a local disk, the workspace is {out}. Give --source, or a path.")
    with sole_writer(out, "draw"):
        if not out.exists("identity_CelebA.txt"):
            from retrieval.data.demo import faces

            starts = range(0, demo.num_images, _DEMO_PART)
            fixed = {"out": out, "demo": demo}
            list(run_parts("draw", starts, draw_from, takes="start", total_items=demo.num_images, fixed=fixed))
            on_cluster(faces.write_lists, Path(out.path), demo, says="lists")
    return out.uri


def draw_from(start: int, out: Folder, demo: DemoConfig, progress: Progress = silent) -> dict[str, int]:
    from retrieval.data.demo import faces

    stop = min(start + _DEMO_PART, demo.num_images)
    faces.draw_images(Path(out.path), start, stop, demo, progress)
    return {"taken": stop - start}


def draw_places(scenes: SceneConfig, out: Folder) -> str:
    if not out.is_local:
        raise ValueError(
            f"The demo draws its places on a local disk, the workspace is {out}. Give --source, or a path."
        )
    from retrieval.data.demo import places

    with sole_writer(out, "draw"):
        return str(on_cluster(places.write_scenes, Path(out.path), scenes, says="draw"))
