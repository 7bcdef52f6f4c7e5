"""A frozen network of a few weights, taken as a user's is."""

from __future__ import annotations

from pathlib import Path

import onnx

from retrieval.models.engines.frozen import FrozenNet, from_file
from retrieval.models.settings import ModelConfig
from tests.support.frozen import tiny, write

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]

ALIGNED = {"crop": "aligned", "detector": "yunet", "margin": 0.0, "size": 112}


def frozen(folder: Path, model: onnx.ModelProto | None = None, **manifest: object) -> FrozenNet:
    write(folder, model or tiny(), **manifest)
    return from_file(ModelConfig(backbone=f"onnx:{folder}"))
