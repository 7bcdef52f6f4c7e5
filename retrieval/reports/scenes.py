"""What tuples were mined from, to look at: the largest reconstructed places."""

from __future__ import annotations

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.geometry.sparse_model import SparseModel, read_model
from retrieval.reports.style import WRONG, dress, new_figure, saved

_MAX_SCENES = 3


def scene_plots(tuples: Folder) -> list[tuple[str, bytes]]:
    """(what it shows, PNG bytes) of the models with most images; none where tuples came from labels."""
    num = int(read_manifest(tuples, "tuples").counts["models"])
    sizes = {number: len(tuples.read_table(f"models/cameras-{number:05d}.parquet")) for number in range(num)}
    largest = sorted(sizes, key=lambda number: (-sizes[number], number))[:_MAX_SCENES]
    plots = []
    for place, number in enumerate(largest, start=1):
        model = read_model(tuples, number)
        title = f"{len(model.image_ids)} cameras, {len(model.points):,} points"
        second = f"from the other side: {model.image_ids[0][-28:]} ..."
        plots.append((f"reconstructed place {place}", scene_png(model, title, second)))
    return plots


def scene_png(model: SparseModel, title: str, second: str) -> bytes:
    """A reconstructed place from above and from the side: its points in their colours, its cameras and where they look.

    A reconstruction has no up of its own: the view is along the axes in which cameras and points spread most. What lies
    far outside (one badly placed camera would shrink all else to a dot) is left out, and the first title counts it.

    Args: title, second: what stands over each of the two views.
    """
    middle = np.median(model.points, axis=0)
    near_points, near_cameras = in_view(model.points, model.centres)
    points, cameras = model.points[near_points] - middle, model.centres[near_cameras] - middle
    axes_of = np.linalg.svd(np.concatenate([points, cameras]), full_matrices=False)[2]
    points, cameras, looks = points @ axes_of.T, cameras @ axes_of.T, model.directions[near_cameras] @ axes_of.T
    if outside := int((~near_cameras).sum()):
        title += f" ({outside} far outside)"
    low, high = np.percentile(np.concatenate([points, cameras]), (1, 99), axis=0)
    low, high = np.minimum(low, cameras.min(axis=0)), np.maximum(high, cameras.max(axis=0))
    length = 0.06 * float(np.linalg.norm(high - low))
    figure, panels = new_figure(2, width=5.0)
    for axes, (x, y), name in zip(panels, ((0, 1), (0, 2)), (title, second), strict=True):
        axes.scatter(points[:, x], points[:, y], s=1.6, c=model.colours[near_points] / 255, linewidths=0)
        axes.quiver(
            cameras[:, x], cameras[:, y], looks[:, x] * length, looks[:, y] * length,
            angles="xy", scale_units="xy", scale=1, color=WRONG, width=0.004, zorder=3,
        )  # fmt: skip
        axes.scatter(cameras[:, x], cameras[:, y], s=14, color=WRONG, zorder=4)
        margin = 0.05 * (high - low)
        axes.set_xlim(low[x] - margin[x], high[x] + margin[x])
        axes.set_ylim(low[y] - margin[y], high[y] + margin[y])
        axes.set_aspect("equal")
        dress(axes, name, "")
    return saved(figure, "png")


def in_view(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which points (P, 3) and camera centres (N, 3) are worth showing: (P,) and (N,) bool.

    Those no further from the points' middle than four times what half of the cameras are.
    """
    middle = np.median(points, axis=0)
    to_points, to_cameras = (np.linalg.norm(of - middle, axis=1) for of in (points, centres))
    reach = 4 * float(np.median(to_cameras))
    return to_points <= reach, to_cameras <= reach
