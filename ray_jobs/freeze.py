"""Freeze: a network that somebody else trained, in ONNX -> a bundle like any other.

    python -m ray_jobs.freeze --model.backbone onnx:sface --collection W/collection --out W/model
    python -m ray_jobs.freeze --model.backbone onnx:FOLDER --collection W/collection --out W/model

FOLDER holds a file in ONNX and network.toml, a dozen lines that say what it takes and gives; and, where the network
describes words too, its text tower and tokenizer, which a table of network.toml names. All are checked against
what the files say of themselves, and the networks are tried out. Nothing is trained: the bundle is there in a second.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from ray_jobs.runtime.alone import alone
from ray_jobs.runtime.command import command
from ray_jobs.runtime.inputs import must_be_sealed
from ray_jobs.runtime.news.quiet import set_up_logging
from retrieval.artifacts.collection import detector_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.models.settings import ModelConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class FreezeConfig:
    """Make a bundle of a network in ONNX."""

    collection: str
    """Folder or URI of the sealed collection that it is to embed: photos of queries are prepared as its photos are."""
    out: str
    """Folder or URI of the bundle to make."""
    model: ModelConfig = field(default_factory=lambda: ModelConfig(backbone="onnx:sface"))
    """The network: `--model.backbone onnx:...`; and flip, to describe each photo with its mirror."""

    def __post_init__(self) -> None:
        if not self.model.is_frozen:
            raise ValueError(
                f"backbone is '{self.model.backbone}', expected onnx:NAME, onnx:FILE or onnx:FOLDER. To train one of "
                f"torchvision: python -m ray_jobs.train."
            )


# What the road of a pipeline asks of a job: see runtime/road.py.
KIND, CONFIG = "model", FreezeConfig
SPEED = ()


@alone
def main(cfg: FreezeConfig) -> Manifest:
    """Make the bundle, or find it done. Returns its manifest.

    Raises: ValueError for a network that is not what its manifest says, or does not fit the collection's photos.
    """
    must_be_sealed(collection=cfg.collection)
    set_up_logging()
    from retrieval.models import bundle

    collection, out = Folder.of(cfg.collection), Folder.of(cfg.out)
    preparation = read_manifest(collection, "collection").config["prepare"]
    net = bundle.start(cfg.model, preparation=preparation, detector=detector_of(collection))
    bundle.save_start(net, out)
    manifest = read_manifest(out, "model")
    logger.info("freeze: %s, %d numbers a photo -> %s", net.spec.config.backbone, net.dim, out)
    return manifest


if __name__ == "__main__":
    command(FreezeConfig, main, __doc__)
