"""What tuples were mined from, to look at: the largest reconstructed places."""

from __future__ import annotations

from retrieval import report
from retrieval.artifacts import Folder, read_manifest
from retrieval.sparse_models import read_model

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
        plots.append((f"reconstructed place {place}", report.scene_png(model, title, second)))
    return plots
