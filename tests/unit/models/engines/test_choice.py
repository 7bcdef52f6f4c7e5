"""Which engine is taken where, by rule; with equal embeddings, and without PyTorch once a network is exported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval.models import bundle
from retrieval.models.engines import choice
from retrieval.models.engines.choice import EXPORT_PAYS, Opened, open_network
from retrieval.models.network import EmbeddingNet
from tests.support.networks import network

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def net() -> EmbeddingNet:
    return network("mobilenet_v2", cut="features.4", image_size=50, pooling="grid", flip=True)


@pytest.fixture(scope="module")
def folder(net: EmbeddingNet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sealed bundle; $RETRIEVAL_CACHE of all tests keeps its export."""
    where = tmp_path_factory.mktemp("bundle") / "model"
    bundle.save_bundle(net, where)
    return str(where)


def engines(folder: str, monkeypatch: pytest.MonkeyPatch, **settings: object) -> str:
    """What is opened, without opening it."""
    opened = {"_open_eager": "torch", "_open_exported": "onnxruntime"}
    for name, engine in opened.items():
        monkeypatch.setattr(choice, name, lambda *_, engine=engine: _opened(engine, str(settings.get("format"))))
    return open_network(folder, **settings_of(settings)).engine  # type: ignore[arg-type]


def settings_of(settings: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in settings.items() if name != "format"}


def _opened(engine: str, form: str) -> Opened:
    from retrieval.models.settings import ModelConfig
    from retrieval.models.spec import ModelSpec

    spec = ModelSpec(config=ModelConfig())
    return Opened(
        spec=spec, fingerprint="", dim=1, engine=engine, format=form, device="cpu", embed=lambda pixels: pixels
    )


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        ({"num_photos": EXPORT_PAYS}, "onnxruntime"),
        ({"num_photos": EXPORT_PAYS - 1}, "torch"),
        ({"num_photos": None}, "onnxruntime"),
        ({}, "torch"),
        ({"num_photos": None, "precision": "fp32"}, "onnxruntime"),
        ({"num_photos": None, "precision": "bf16"}, "torch"),
        ({"num_photos": None, "device": "cuda"}, "torch"),
        ({"num_photos": None, "engine": "torch"}, "torch"),
        ({"num_photos": 1, "engine": "onnxruntime"}, "onnxruntime"),
    ],
)
def test_the_rule(folder: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], engine: str) -> None:
    monkeypatch.setattr(choice, "_has_gpu", lambda: False)
    monkeypatch.setattr(choice, "has_bfloat16", lambda: False)
    assert engines(folder, monkeypatch, **settings) == engine


def test_a_gpu_and_bfloat16_are_pytorchs(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_has_gpu", lambda: True)
    monkeypatch.setattr(choice, "has_bfloat16", lambda: True)
    assert engines(folder, monkeypatch, num_photos=None) == "torch"
    monkeypatch.setattr(choice, "_has_gpu", lambda: False)
    assert engines(folder, monkeypatch, num_photos=EXPORT_PAYS, format="bfloat16 after 2 of 9 blocks") == "torch"
    assert engines(folder, monkeypatch, num_photos=EXPORT_PAYS, format="float32") == "onnxruntime"
    assert engines(folder, monkeypatch, num_photos=EXPORT_PAYS, precision="fp32") == "onnxruntime"
    assert engines(folder, monkeypatch, num_photos=None, format="bfloat16") == "onnxruntime"


def test_what_was_decided_for_all_machines_holds_on_one_that_lacks_bfloat16(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_has_gpu", lambda: False)
    monkeypatch.setattr(choice, "has_bfloat16", lambda: False)
    decided: dict[str, object] = {"num_photos": EXPORT_PAYS, "format": "bfloat16", "assume_bfloat16": True}
    assert engines(folder, monkeypatch, **decided) == "torch"
    assert engines(folder, monkeypatch, **decided, precision="fp32") == "onnxruntime"


@pytest.mark.parametrize(
    ("told", "back"),
    [
        ({}, False),
        ({"ONEDNN_MAX_CPU_ISA": "avx2"}, True),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, True),
        ({"DNNL_MAX_CPU_ISA": "AVX2"}, True),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "DNNL_MAX_CPU_ISA": "AVX2"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, False),
    ],
)
def test_onednn_can_be_told_to_do_without_bfloat16(
    told: dict[str, str], back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    there = choice.has_bfloat16()
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert choice.held_back() == back and choice.has_bfloat16() == (there and not back)


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"device": "cuda"}])
def test_settings_that_do_not_fit_are_refused(folder: str, settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="engine is onnxruntime and .*Leave out one"):
        open_network(folder, engine="onnxruntime", **settings)  # type: ignore[arg-type]


def test_both_engines_give_one_embedding_of_one_bundle(folder: str, net: EmbeddingNet) -> None:
    found = [open_network(folder, engine=engine, device="cpu", precision="fp32") for engine in ("torch", "onnxruntime")]
    assert [one.engine for one in found] == ["torch", "onnxruntime"]
    for field in ("spec", "fingerprint", "dim", "format", "device"):
        assert getattr(found[0], field) == getattr(found[1], field)
    assert found[0].fingerprint == net.fingerprint
    assert np.abs(found[0].embed(PIXELS) - found[1].embed(PIXELS)).max() < 1e-6


def test_the_same_bundle_gives_the_same_bits_again(folder: str) -> None:
    first, again = (open_network(folder, engine="onnxruntime", threads=1).embed(PIXELS) for _ in range(2))
    assert np.array_equal(first, again)


def test_once_exported_it_runs_without_pytorch(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_network(folder, engine="onnxruntime", threads=1).embed(PIXELS)
    code = f"""
import json, sys
import numpy as np
from retrieval.models.embedder import Embedder
embedder = Embedder({folder!r}, device="cpu", num_threads=1, num_photos=None)
pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), dtype=np.uint8)
print(json.dumps(["torch" in sys.modules, embedder.engine, embedder.embed_pixels(pixels).tolist()]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
    has_torch, engine, embeddings = json.loads(done.stdout)
    assert (has_torch, engine) == (False, "onnxruntime")
    assert np.array_equal(np.array(embeddings, np.float32), expected)


def test_what_does_not_export_stays_in_pytorch_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd = network("mobilenet_v2", cut="features.4", image_size=64, pooling="rmac", keep_aspect=True)
    bundle.save_bundle(odd, tmp_path / "odd")
    with caplog.at_level("INFO"):
        opened = open_network(str(tmp_path / "odd"), device="cpu", precision="fp32", num_photos=None)
    assert opened.engine == "torch" and opened.embed(PIXELS).shape == (3, 16)
    assert "stays in PyTorch: PyTorch does not export it: rmac pooling" in caplog.text
    with pytest.raises(ValueError, match="engine is onnxruntime, and this network does not run in it: .*Use auto"):
        open_network(str(tmp_path / "odd"), engine="onnxruntime")


def test_a_network_in_memory_is_exported_only_where_it_is_asked_for(net: EmbeddingNet) -> None:
    assert open_network(net, device="cpu", num_photos=None).engine == "torch"
