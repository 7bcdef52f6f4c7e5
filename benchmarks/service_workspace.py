"""What the query service is measured with, where no workspace is given."""

from __future__ import annotations

from pathlib import Path

from retrieval.artifacts.folder import Folder
from retrieval.data.demo.places import write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.data.settings import SplitConfig
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig
from tests.support.workspace import make_workspace, publish_made


def drawn(folder: Path, subject: str, weights: str) -> tuple[str, list[bytes]]:
    """A workspace of faces or places that are drawn, and its photos. Args: weights: as `models.network.start`."""
    if subject == "faces":
        prepare, network = PrepareConfig(detector="haar"), ModelConfig(image_size=160)
        made = make_workspace(folder, num_identities=40, prepare=prepare, config=network, weights=weights)
        return str(made.folder), [path.read_bytes() for path in made.photos.values()]
    source = write_scenes(folder / "photos", SceneConfig(num_places=16, images_per_place=4, num_distractors=16))
    workspace = Folder.of(folder / "workspace")
    network = ModelConfig(image_size=320, keep_aspect=True, pooling="gem", head="none", embedding_dim=1280)
    prepare, split = PrepareConfig(crop="fit", size=480), SplitConfig(keep_singles=True)
    publish_made(workspace, source, prepare, network, weights=weights, split=split)
    return str(workspace), [path.read_bytes() for path in sorted((folder / "photos").rglob("*.jpg"))]
