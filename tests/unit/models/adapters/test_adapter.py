"""An adapter is the map that it says, the same whatever engine runs the network, and part of what a bundle is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.images.pixels import encode_jpeg
from retrieval.models import bundle
from retrieval.models.adapters.adapter import Adapter, read_adapter
from retrieval.models.embedder import Embedder
from retrieval.models.engines.frozen import from_file
from retrieval.models.network import Network, with_adapter, with_scales, with_whitening
from retrieval.models.settings import AdapterKind, ModelConfig
from retrieval.models.spec import ADAPTER_FILE, known_threshold, load_spec
from tests.support.frozen import DIM, tiny, write
from tests.support.networks import GEM, network, whitening

TOLD = {"whitening": (5, 8), "linear": (8, 8), "residual": (3, 8)}  # rows of the matrix, or units; what it takes


def drawn(kind: AdapterKind, rows: int, length: int) -> Adapter:
    rng = np.random.default_rng(5)
    if kind == "residual":
        shapes = {"up": (rows, length), "up_bias": (rows,), "down": (length, rows), "down_bias": (length,)}
    else:
        shapes = {"weight": (rows, length), "bias": (rows,)}
    return Adapter(kind, {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


def unit(num: int, length: int) -> np.ndarray:
    x = np.random.default_rng(6).normal(size=(num, length)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def jpegs(num: int = 3) -> list[bytes]:
    rng = np.random.default_rng(7)
    return [encode_jpeg(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(num)]


@pytest.mark.parametrize("kind", list(TOLD))
def test_it_is_the_map_of_a_slow_loop(kind: AdapterKind) -> None:
    adapter, x = drawn(kind, *TOLD[kind]), unit(4, 8)
    assert (adapter.takes, adapter.dim) == (8, {"whitening": 5, "linear": 8, "residual": 8}[kind])
    got, tensors = adapter(x), {name: value.astype(np.float64) for name, value in adapter.tensors.items()}
    assert got.shape == (4, adapter.dim) and got.dtype == np.float32
    for row, one in zip(x.astype(np.float64), got, strict=True):
        if kind == "residual":
            hidden = [max(0.0, float(u @ row) + b) for u, b in zip(tensors["up"], tensors["up_bias"], strict=True)]
            y = row + tensors["down"] @ np.array(hidden) + tensors["down_bias"]
        else:
            y = np.array([float(w @ row) + b for w, b in zip(tensors["weight"], tensors["bias"], strict=True)])
        np.testing.assert_allclose(one, y / np.linalg.norm(y), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [
        ("none", {"weight": (8, 8), "bias": (8,)}),
        ("linear", {"weight": (8, 8)}),
        ("linear", {"weight": (8, 8), "bias": (7,)}),
        ("linear", {"weight": (8,), "bias": (8,)}),
        ("residual", {"weight": (8, 8), "bias": (8,)}),
        ("residual", {"up": (3, 8), "up_bias": (3,), "down": (3, 8), "down_bias": (8,)}),
        ("residual", {"up": (3, 8), "up_bias": (3,), "down": (8, 3), "down_bias": (3,)}),
        ("residual", {"up": (3, 8), "up_bias": (8,), "down": (8, 3), "down_bias": (8,)}),
    ],
)
def test_numbers_that_are_no_adapter_are_refused(kind: AdapterKind, tensors: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=f"not the numbers of a '{kind}' adapter"):
        Adapter(kind, {name: np.zeros(shape, np.float32) for name, shape in tensors.items()})


@pytest.mark.parametrize("bad", [np.full(8, np.nan, np.float32), np.zeros(8, np.float64)])
def test_values_that_are_no_numbers_of_float32_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no numbers of float32"):
        Adapter("linear", {"weight": np.eye(8, dtype=np.float32), "bias": bad})


def test_without_one_a_bundle_has_no_file_and_its_spec_no_word_of_it(tmp_path: Path) -> None:
    bundle.save_bundle(network(), tmp_path)
    assert not (tmp_path / ADAPTER_FILE).exists() and "adapter" not in load_spec(tmp_path).plain
    assert read_adapter(Folder.of(tmp_path), "none", read_manifest(Folder.of(tmp_path))) is None
    assert bundle.load_network(tmp_path).adapter is None


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("flip", [False, True])
def test_it_comes_last_of_all_in_every_engine(engine: str, flip: bool, tmp_path: Path) -> None:
    net = network(flip=flip)
    net = with_whitening(net, *whitening(8, 16), "pca")
    adapter = drawn("whitening", 5, 8)
    plain, adapted = tmp_path / "plain", tmp_path / "adapted"
    before = bundle.save_bundle(net, plain)
    after = bundle.save_bundle(with_adapter(net, adapter), adapted)
    assert before.fingerprint != after.fingerprint and after.counts["embedding_dim"] == 5
    expected = Embedder(str(plain), engine=engine, precision="fp32").embed_jpegs(jpegs())  # type: ignore[arg-type]
    embedder = Embedder(str(adapted), engine=engine, precision="fp32")  # type: ignore[arg-type]
    assert (embedder.dim, embedder.spec.adapter) == (5, "whitening")
    np.testing.assert_array_equal(embedder.embed_jpegs(jpegs()), adapter(expected))


@pytest.mark.parametrize("flip", [False, True])
def test_a_frozen_network_has_one_as_well(flip: bool, tmp_path: Path) -> None:
    write(tmp_path / "net", tiny())
    net = from_file(ModelConfig(backbone=f"onnx:{tmp_path / 'net'}", flip=flip))
    adapter = drawn("residual", 3, DIM)
    in_memory = with_adapter(net, adapter)
    bundle.save_bundle(in_memory, tmp_path / "adapted")
    expected = adapter(Embedder(net).embed_jpegs(jpegs()))
    for model in (str(tmp_path / "adapted"), in_memory, bundle.load_network(tmp_path / "adapted")):
        np.testing.assert_allclose(Embedder(model).embed_jpegs(jpegs()), expected, atol=1e-6)
    assert net.adapter is None, "the network given stays as it was"


def test_another_one_gives_another_fingerprint(tmp_path: Path) -> None:
    made = []
    for number, factor in enumerate((1.0, 1.0, 2.0)):
        adapter = Adapter("linear", {"weight": np.eye(16, dtype=np.float32), "bias": np.full(16, factor, np.float32)})
        made.append(bundle.save_bundle(with_adapter(network(), adapter), tmp_path / str(number)).fingerprint)
    assert made[0] == made[1] != made[2]


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    bundle.save_bundle(with_adapter(network(), drawn("linear", 16, 16)), tmp_path)
    (tmp_path / ADAPTER_FILE).write_bytes(drawn("linear", 16, 16).content()[:-4] + b"1234")
    for opens in (lambda: bundle.load_network(tmp_path), lambda: Embedder(str(tmp_path))):
        with pytest.raises(ValueError, match=f"{ADAPTER_FILE} is not the file that was sealed"):
            opens()
    with pytest.raises(ValueError, match="is not the file that was sealed"):
        read_adapter(Folder.of(tmp_path), "linear", read_manifest(Folder.of(tmp_path)))


@pytest.mark.parametrize(
    "changes",
    [
        lambda net: with_whitening(net, *whitening(4, net.dim), "pca"),
        lambda net: with_scales(net, (1.0, 0.5)),
        lambda net: with_adapter(net, drawn("linear", net.dim, net.dim)),
    ],
)
def test_nothing_else_is_put_on_after_it_was_trained(changes: object) -> None:
    net = network(**{name: getattr(GEM, name) for name in ("pooling", "head")})
    adapted = with_adapter(net, drawn("linear", net.dim, net.dim))
    with pytest.raises(ValueError, match="has an adapter"):
        changes(adapted)  # type: ignore[operator]
    changes(net)  # type: ignore[operator]


def test_one_for_other_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="takes embeddings of length 8, and the network gives 16"):
        with_adapter(network(), drawn("linear", 8, 8))


def test_a_publisher_s_threshold_is_of_the_network_alone(tmp_path: Path) -> None:
    write(tmp_path / "net", tiny(), thresholds={"same": 0.4})
    net: Network = from_file(ModelConfig(backbone=f"onnx:{tmp_path / 'net'}"))
    bundle.save_bundle(net, tmp_path / "plain")
    bundle.save_bundle(with_adapter(net, drawn("linear", DIM, DIM)), tmp_path / "adapted")
    found = known_threshold(tmp_path / "plain")
    assert found is not None and found.threshold == 0.4
    assert known_threshold(tmp_path / "adapted") is None


def test_embeddings_in_torch_go_through_it_as_well() -> None:
    net, x = network(), unit(4, 16)
    assert net.adapted(torch.from_numpy(x)).numpy() is not None and torch.equal(
        net.adapted(torch.from_numpy(x)), torch.from_numpy(x)
    )
    adapter = drawn("linear", 16, 16)
    np.testing.assert_array_equal(with_adapter(net, adapter).adapted(torch.from_numpy(x)).numpy(), adapter(x))
