"""A sealed frozen network runs without PyTorch, and gives what the module that was sealed gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrieval.artifacts.folder import Folder
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.engines.choice import open_network
from retrieval.models.engines.frozen import FrozenNet, from_file
from retrieval.models.engines.session import FrozenBundle
from retrieval.models.network import with_whitening
from retrieval.models.settings import ModelConfig
from retrieval.models.spec import load_spec
from tests.support.frozen import DIM, tiny, write

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def sealed(root: Path, *, flip: bool = False, whitened: bool = False, **manifest: Any) -> tuple[str, FrozenNet]:
    write(root / "net", tiny(), **manifest)
    net = from_file(ModelConfig(backbone=f"onnx:{root / 'net'}", flip=flip))
    if whitened:
        rng = torch.Generator().manual_seed(0)
        net = with_whitening(net, torch.randn(4, DIM, generator=rng), 0.1 * torch.randn(DIM, generator=rng), "pca")
    bundle.save_bundle(net, root / "bundle")
    return str(root / "bundle"), net


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("whitened", [False, True])
def test_the_bundle_gives_what_the_module_gives(tmp_path: Path, flip: bool, whitened: bool) -> None:
    folder, net = sealed(tmp_path, flip=flip, whitened=whitened, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    opened = FrozenBundle(folder, load_spec(folder), threads=1)
    expected = open_network(net, device="cpu")
    assert (opened.dim, opened.fingerprint) == (expected.dim, expected.fingerprint)
    np.testing.assert_allclose(opened.embed(PIXELS), expected.embed(PIXELS), atol=1e-6)


def test_it_runs_without_pytorch(tmp_path: Path) -> None:
    folder, net = sealed(tmp_path, whitened=True, flip=True)
    code = f"""
import json, sys
import numpy as np
from retrieval.models.embedder import Embedder
embedder = Embedder({folder!r}, device="cpu", num_threads=1)
pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
print(json.dumps(["torch" in sys.modules, embedder.engine, embedder.embed_pixels(pixels).tolist()]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
    has_torch, engine, found = json.loads(done.stdout)
    assert (has_torch, engine) == (False, "onnxruntime")
    np.testing.assert_allclose(np.array(found), Embedder(net, device="cpu").embed_pixels(PIXELS), atol=1e-6)


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder, _ = sealed(tmp_path)
    with pytest.raises(ValueError, match="precision bf16 was asked for, and tiny runs in the number format"):
        open_network(folder, precision="bf16")
    with pytest.raises(ValueError, match="engine is torch, and tiny is no network of PyTorch's"):
        open_network(folder, engine="torch")
    with pytest.raises(ValueError, match="Device 'cuda' was asked for, but onnxruntime finds no GPU here"):
        open_network(folder, device="cuda")


@pytest.mark.parametrize("name", ["network.onnx", "model.safetensors"])
def test_a_changed_file_is_refused_without_pytorch_too(tmp_path: Path, name: str) -> None:
    folder, _ = sealed(tmp_path)
    where = Folder.of(folder)
    where.write_bytes(name, where.read_bytes(name)[:-1] + b"!")
    with pytest.raises(ValueError, match=rf"{name} is not the file that was sealed"):
        open_network(folder)
