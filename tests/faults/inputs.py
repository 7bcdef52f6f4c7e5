"""What jobs on small inputs begin with, and no job makes of another's output: photos, networks, a gallery."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrieval.artifacts import published
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.data.settings import SplitConfig
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig

MODEL = ModelConfig(cut="features.2", image_size=32, embedding_dim=8)


def _drawn(root: Path) -> None:
    from retrieval.data.demo.faces import draw_collection

    draw_collection(root / "drawn", num_identities=8, images_per_identity=4, seed=1, size=(60, 72), flaws=True)


def _places(root: Path) -> None:
    from retrieval.data.demo.places import write_scenes
    from retrieval.data.demo.settings import SceneConfig
    from tests.support.places import collect

    scenes = SceneConfig(num_places=2, images_per_place=4, num_distractors=1, size=280, seed=5)
    split = SplitConfig(keep_singles=True, test_fraction=0, val_fraction=0)
    collect(Folder.of(root / "places"), write_scenes(root / "scenes", scenes), split, part_size=5)


def _net(root: Path) -> None:
    from tests.support.frozen import tiny, write

    write(root / "net", tiny(48), size=48)


def _tuples(root: Path) -> None:
    from ray_jobs import reconstruct

    where: dict[str, Any] = {"collection": f"{root}/collection", "out": f"{root}/tuples"}
    reconstruct.main(reconstruct.ReconstructJobConfig(**where, labels_as_clusters=True))


def _landmarks(root: Path) -> None:
    """Photos of two places, asked for by one each, and a bundle that takes whole photos."""
    from retrieval.data.demo.places import write_scenes
    from retrieval.data.demo.settings import SceneConfig
    from retrieval.models import bundle

    write_scenes(root / "landmarks", SceneConfig(num_places=2, images_per_place=3, num_distractors=0, size=96, seed=5))
    for photo in sorted((root / "landmarks").rglob("*.jpg")):
        photo.rename(root / "landmarks" / f"{photo.parent.name}_{photo.name}")
    names = [f"place_{place:03d}_{number:03d}" for place in range(2) for number in range(3)]
    asked = [{"bbx": [5, 5, 90, 90], "easy": [3 * at + 1], "hard": [3 * at + 2], "junk": []} for at in range(2)]
    truth = {"imlist": names, "qimlist": [names[0], names[3]], "gnd": asked}
    (root / "landmarks/gnd_drawn.pkl").write_bytes(pickle.dumps(truth))
    config = dataclasses.replace(MODEL, pooling="gem", head="none", keep_aspect=True)
    prepare = plain(PrepareConfig(crop="fit", size=64))
    bundle.save_bundle(bundle.build(config, weights="none", seed=0, preparation=prepare), root / "whole")


def _aliked(root: Path) -> None:
    from tests.support.local import random_aliked

    (root / "aliked.safetensors").write_bytes(random_aliked())


def _gallery(root: Path) -> None:
    """A published gallery with people, a photo added and one deleted, for compact."""
    from ray_jobs import group
    from retrieval.grouping.settings import GroupingConfig
    from retrieval.live.store import Store
    from tests.support.gallery import new_image, sealed_gallery

    made = sealed_gallery(root / "gallery", people=False, part_size=16)
    pair = made.pair
    where: dict[str, Any] = {"collection": pair.collection.uri, "index": pair.index.uri}
    people = made.workspace / "people/made"
    embeddings = (made.workspace / "embeddings/made").uri
    group.main(group.GroupConfig(**where, embeddings=embeddings, out=people.uri, group=GroupingConfig(threshold=0.5)))
    published.publish(made.workspace, collection=pair.collection, model=pair.model, index=pair.index, people=people)
    store = Store.open(made.workspace)
    store.add([new_image("new.jpg", 2)], pair.model_fingerprint)
    store.delete(["a/ada-000.jpg"], {})
    store.close()


MADE_ALONE: dict[str, Callable[[Path], None]] = {
    "drawn": _drawn,
    "places": _places,
    "net": _net,
    "aliked.safetensors": _aliked,
    "tuples": _tuples,
    "landmarks": _landmarks,
    "gallery": _gallery,
}
"""By the name that it has below a folder."""
