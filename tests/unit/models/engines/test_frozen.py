"""A frozen network is what its file says, or is refused in a sentence; its bundle goes every road of a trained one."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from retrieval.artifacts.calibration import KnownThreshold
from retrieval.artifacts.collection import detector_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.images.pixels import decode_stored, encode_jpeg
from retrieval.models import bundle, known_weights
from retrieval.models.embedder import Embedder
from retrieval.models.engines.frozen import FrozenNet, from_file
from retrieval.models.engines.runtime import open_session
from retrieval.models.network import with_whitening
from retrieval.models.settings import ModelConfig
from retrieval.models.spec import known_threshold
from tests.conftest import REAL_DATA
from tests.support.frozen import DIM, tiny, write
from tests.support.frozen_net import ALIGNED, MEAN, STD, frozen
from tests.support.patterns import pattern


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    return [encode_jpeg(pattern(identity, shot)) for identity in range(3) for shot in range(2)]


def as_told(model: onnx.ModelProto, jpegs: list[bytes], prepare: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What onnxruntime itself gives, a photo at a time; `prepare` takes (1, 32, 32, 3) float RGB."""
    session = open_session(model.SerializeToString())
    pixels = [prepare(decode_stored(jpeg, 32)[None].astype(np.float32)) for jpeg in jpegs]
    rows = np.concatenate([np.asarray(session.run(None, {"x": np.ascontiguousarray(x)})[0]) for x in pixels])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("made", "manifest", "prepare"),
    [
        ({}, {}, lambda x: x.transpose(0, 3, 1, 2)),
        ({"batch": 1}, {}, lambda x: x.transpose(0, 3, 1, 2)),
        ({}, {"channels": "BGR"}, lambda x: x[..., ::-1].transpose(0, 3, 1, 2)),
        ({}, {"mean": MEAN, "std": STD}, lambda x: ((x / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)),
        ({"layout": "NHWC"}, {"layout": "NHWC"}, lambda x: x),
        ({"layout": "NHWC", "dtype": TensorProto.UINT8}, {"layout": "NHWC"}, lambda x: x.astype(np.uint8)),
        ({"open_output": True}, {"output": "y"}, lambda x: x.transpose(0, 3, 1, 2)),
    ],
)
def test_a_photo_is_given_as_the_manifest_says(
    tmp_path: Path,
    jpegs: list[bytes],
    made: dict[str, Any],
    manifest: dict[str, object],
    prepare: Callable[[np.ndarray], np.ndarray],
) -> None:
    model = tiny(**made)
    got = Embedder(frozen(tmp_path, model, **manifest), device="cpu", batch_size=4).embed_jpegs(jpegs)
    assert got.dtype == np.float32 and got.shape == (6, DIM)
    assert np.abs(got - as_told(model, jpegs, prepare)).max() < 1e-5


def test_the_wrong_order_or_light_gives_something_else(tmp_path: Path, jpegs: list[bytes]) -> None:
    plain = Embedder(frozen(tmp_path / "a"), device="cpu").embed_jpegs(jpegs)
    others: dict[str, dict[str, Any]] = {"b": {"channels": "BGR"}, "c": {"mean": MEAN, "std": STD}}
    for place, manifest in others.items():
        other = Embedder(frozen(tmp_path / place, **manifest), device="cpu").embed_jpegs(jpegs)
        assert np.abs(other - plain).max() > 1e-2


def test_photos_of_any_shape_where_the_network_takes_them(tmp_path: Path) -> None:
    write(tmp_path, tiny("any"), size="any")
    jpegs = [encode_jpeg(np.ascontiguousarray(pattern(i, 0)[: 64 + 16 * (i % 2)])) for i in range(4)]
    config = ModelConfig(backbone=f"onnx:{tmp_path}", image_size=48, keep_aspect=True)
    got = Embedder(from_file(config), device="cpu").embed_jpegs(jpegs)
    alone = [Embedder(from_file(config), device="cpu").embed_jpegs([jpeg])[0] for jpeg in jpegs]
    np.testing.assert_allclose(got, np.stack(alone), atol=1e-5)


def test_flip_is_the_sum_with_the_mirror(tmp_path: Path, jpegs: list[bytes]) -> None:
    write(tmp_path, tiny())
    nets = [from_file(ModelConfig(backbone=f"onnx:{tmp_path}", flip=flip)) for flip in (False, True)]
    pixels = np.stack([decode_stored(jpeg, 32) for jpeg in jpegs])
    plain, both = (Embedder(net, device="cpu") for net in nets)
    total = plain.embed_pixels(pixels) + plain.embed_pixels(pixels[:, :, ::-1].copy())
    expected = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(both.embed_pixels(pixels), expected, atol=1e-5)


def test_a_bundle_holds_the_file_and_comes_back_the_same(tmp_path: Path, jpegs: list[bytes]) -> None:
    net = frozen(tmp_path / "net", licence="CC0-1.0", thresholds={"same": 0.25})
    out = Folder.of(tmp_path / "bundle")
    bundle.save_start(net, out)
    assert out.read_bytes("network.onnx") == (tmp_path / "net" / "tiny.onnx").read_bytes()
    told = out.read_json("model.json")
    assert told["network"]["licence"] == "CC0-1.0" and told["config"]["backbone"] == "onnx:tiny"
    assert str(tmp_path) not in out.read_bytes("model.json").decode(), "where it was is nobody's business"
    manifest = read_manifest(out, "model")
    assert manifest.counts == {"embedding_dim": DIM, "parameters": 16 * 27 + 16 * DIM}
    again = bundle.load_network(out)
    assert isinstance(again, FrozenNet)
    assert again.spec == net.spec == bundle.load_spec(out)
    assert again.fingerprint == manifest.fingerprint == net.fingerprint
    embedder = Embedder(out, device="cpu", num_threads=1)
    assert (embedder.format, embedder.dim, embedder.fingerprint) == ("onnxruntime", DIM, manifest.fingerprint)
    np.testing.assert_array_equal(embedder.embed_jpegs(jpegs), Embedder(net, device="cpu").embed_jpegs(jpegs))
    assert known_threshold(out) == KnownThreshold(threshold=0.25, source="the network's publisher")
    bundle.save_start(net, out)  # sealed already: found, and left
    assert read_manifest(out).created == manifest.created


def test_two_files_are_two_starting_points(tmp_path: Path) -> None:
    one, two = frozen(tmp_path / "a"), frozen(tmp_path / "b", tiny(seed=1))
    assert bundle.digest_of(one) != bundle.digest_of(two)
    assert bundle.digest_of(one) == bundle.digest_of(from_file(ModelConfig(backbone=f"onnx:{tmp_path / 'a'}")))


@pytest.mark.parametrize("name", ["network.onnx", "model.safetensors"])
def test_a_damaged_bundle_is_refused(tmp_path: Path, name: str) -> None:
    out = Folder.of(tmp_path / "bundle")
    bundle.save_start(frozen(tmp_path / "net"), out)
    out.write_bytes(name, out.read_bytes(name)[:-1] + b"!")
    with pytest.raises(ValueError, match=rf"{name} is not the file that was sealed"):
        bundle.load_network(out)


def test_whitening_is_learned_on_it_and_applied_last(tmp_path: Path, jpegs: list[bytes]) -> None:
    net = frozen(tmp_path / "net", thresholds={"same": 0.25})
    rng = torch.Generator().manual_seed(0)
    projection, mean = torch.randn(4, DIM, generator=rng), 0.1 * torch.randn(DIM, generator=rng)
    white = with_whitening(net, projection, mean, "pca")
    out = Folder.of(tmp_path / "white")
    bundle.save_bundle(white, out)
    plain = torch.from_numpy(Embedder(net, device="cpu").embed_jpegs(jpegs))
    expected = torch.nn.functional.normalize((plain - mean) @ projection.T)
    got = Embedder(out, device="cpu").embed_jpegs(jpegs)
    assert got.shape == (6, 4) and read_manifest(out).counts["embedding_dim"] == 4
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    assert known_threshold(out) is None, "it is of other numbers"


def test_the_detector_lies_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "net", tiny(112), size=112, alignment="five-points")
    config = ModelConfig(backbone=f"onnx:{tmp_path / 'net'}")
    net = from_file(config, preparation=ALIGNED, detector=b"a detector")
    assert detector_of(Folder.of(tmp_path / "net")) is None
    out = Folder.of(tmp_path / "bundle")
    bundle.save_start(net, out)
    assert detector_of(out) == out.read_bytes("detector.onnx") == b"a detector"
    again = bundle.load_network(out)
    assert again.detector == b"a detector" and again.spec.preparation == ALIGNED
    white = Folder.of(tmp_path / "white")
    bundle.save_bundle(with_whitening(again, torch.eye(DIM), torch.zeros(DIM), "pca"), white)
    assert detector_of(white) == b"a detector"
    out.write_bytes("detector.onnx", b"another one")
    with pytest.raises(ValueError, match="detector.onnx is not the file that was sealed"):
        bundle.load_network(out)


def test_it_is_copied_without_its_session(tmp_path: Path, jpegs: list[bytes]) -> None:
    net = frozen(tmp_path)
    x = net.normalise(torch.from_numpy(decode_stored(jpegs[0], 32)[None]))
    expected = net(x)
    assert net.file.__getstate__()["_session"] is None
    other = copy.deepcopy(net)
    assert other.content is net.content
    torch.testing.assert_close(other(x), expected)


def test_the_licence_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "net", tiny(), licence="CC-BY-4.0", trained_on="drawn squares")
    with caplog.at_level(logging.INFO):
        net = from_file(ModelConfig(backbone=f"onnx:{tmp_path / 'net'}"))
        bundle.save_start(net, Folder.of(tmp_path / "bundle"))
        Embedder(str(tmp_path / "bundle"), device="cpu")
    assert caplog.messages == ["network tiny: licence CC-BY-4.0, trained on drawn squares"]


@pytest.mark.realdata
def test_sface_equals_opencvs(real_faces: Any) -> None:
    """The published file, which onnxruntime alone would not run: equal to what OpenCV's own class gives for it."""
    import cv2

    file = REAL_DATA / "weights" / known_weights.KNOWN["sface"].file
    net = from_file(ModelConfig(backbone=f"onnx:{file}"))
    theirs = cv2.FaceRecognizerSF.create(str(file), "")
    photos = sorted((REAL_DATA / "faces" / "lfw").glob("A*/*_0001.jpg"))[:6]
    pixels = np.stack([decode_stored(photo.read_bytes(), 112) for photo in photos])
    got = Embedder(net, device="cpu").embed_pixels(pixels)
    for row, one in zip(got, pixels, strict=True):
        expected = theirs.feature(np.ascontiguousarray(one[..., ::-1]))[0]
        assert float(row @ expected / np.linalg.norm(expected)) > 0.99999


def test_another_file_does_not_run_under_its_manifest(tmp_path: Path) -> None:
    spec = frozen(tmp_path).spec
    with pytest.raises(ValueError, match=r"tiny is another file than its manifest names: sha256 .*Copy it again"):
        FrozenNet(spec, tiny(seed=1).SerializeToString())
