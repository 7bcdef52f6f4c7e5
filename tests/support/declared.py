"""Work for machines whose GPU is declared and not there: it says where it landed, and computes on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ray_jobs import embed
from retrieval.artifacts.folder import Folder


def seen() -> str:
    """The devices that this process sees."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


class EmbedsWhereItIsPut(embed.EmbedPart):
    """An actor of `embed` that was given a device. Raises: ValueError if it sees none, or more than its own."""

    def __init__(self, collection: Folder, model: Folder, out: Folder, settings: dict[str, Any]) -> None:
        if settings["device"] != "cuda" or seen() != "0":
            raise ValueError(f"It is to compute on {settings['device']} and sees the devices '{seen()}'.")
        super().__init__(collection, model, out, settings | {"device": "cpu"})


def embed_where_a_gpu_is_declared(root: str, out: str) -> None:
    """`embed --device cuda`, less the device itself."""
    embed.EmbedPart = EmbedsWhereItIsPut  # type: ignore[misc]
    where: dict[str, Any] = {"collection": f"{root}/collection", "model": f"{root}/model"}
    embed.main(embed.EmbedConfig(**where, out=out, precision="fp32", device="cuda", engine="torch"))
    assert Path(out, "manifest.json").exists()
