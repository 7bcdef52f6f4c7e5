"""The fast road to embeddings equals the plain network, and a part on disk holds them in the images' order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models as tv

from retrieval.artifacts.embeddings import REJECTED, left_out
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.hashing import hash_file
from retrieval.images.native import BadImage
from retrieval.images.pixels import decode_fit, decode_stored, encode_jpeg, resize
from retrieval.models import bundle
from retrieval.models.bundle import save_bundle
from retrieval.models.embedder import Embedder, begin_embeddings, embed_part, seal_embeddings
from retrieval.models.network import EmbeddingNet, with_whitening
from tests.support.networks import network, plainly
from tests.support.patterns import make_patterns, pattern


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    return [encode_jpeg(pattern(identity, shot)) for identity in range(5) for shot in range(2)]


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("flip", [False, True])
def test_float32_equals_the_network(jpegs: list[bytes], backbone: str, flip: bool) -> None:
    net = network(backbone, flip=flip)
    before = bundle.digest_of(net)
    got = Embedder(net, device="cpu", precision="fp32", batch_size=4).embed_jpegs(jpegs)
    assert got.dtype == np.float32 and got.shape == (10, 16)
    assert np.abs(got - plainly(net, jpegs)).max() < 1e-5
    assert np.abs(np.linalg.norm(got, axis=1) - 1).max() < 1e-4
    assert bundle.digest_of(net) == before  # the given network is left as it is


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_bfloat16_stays_close(jpegs: list[bytes], backbone: str) -> None:
    net = network(backbone)
    got = Embedder(net, device="cpu", precision="bf16").embed_jpegs(jpegs)
    assert got.dtype == np.float32
    assert (got * plainly(net, jpegs)).sum(axis=1).min() >= 0.99


def test_an_image_and_its_mirror_embed_alike_with_flip(jpegs: list[bytes]) -> None:
    pixels = np.stack([decode_stored(jpeg, 64) for jpeg in jpegs])
    both = [Embedder(network(flip=flip), device="cpu", precision="fp32") for flip in (False, True)]
    plain, flipping = (
        embedder.embed_pixels(pixels) - embedder.embed_pixels(pixels[:, :, ::-1].copy()) for embedder in both
    )
    assert np.abs(flipping).max() < 1e-6 < 1e-3 < np.abs(plain).max()


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_batches_change_nothing(jpegs: list[bytes], batch_size: int) -> None:
    net = network(cut="layer2")
    whole = Embedder(net, device="cpu", precision="fp32").embed_jpegs(jpegs)
    got = Embedder(net, device="cpu", precision="fp32", batch_size=batch_size).embed_jpegs(jpegs)
    assert np.abs(got - whole).max() < 1e-6


def test_squares_go_through_in_order_as_many_as_asked_for(jpegs: list[bytes]) -> None:
    embedder = Embedder(network(cut="layer1"), device="cpu", precision="fp32", batch_size=3)
    assert [rows.tolist() for rows in embedder._batches(jpegs)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    told: list[tuple[str, int, int]] = []
    embedder.embed_jpegs(jpegs, lambda *row: told.append(row))
    assert told == [("photos", done, 10) for done in (3, 6, 9, 10)]


def test_settings_of_the_process_and_of_the_bundle_are_kept(jpegs: list[bytes], tmp_path: Path) -> None:
    net = network(cut="layer1")
    bundle.save_bundle(net, tmp_path)
    threads = torch.get_num_threads()
    try:
        embedder = Embedder(str(tmp_path), device="cpu", num_threads=threads + 1, precision="fp32")
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert (embedder.fingerprint, embedder.spec, embedder.dim) == (net.fingerprint, net.spec, 16)
    assert embedder.fingerprint and embedder.batch_size == 64
    assert np.abs(embedder.embed_jpegs(jpegs[:3]) - plainly(net, jpegs[:3])).max() < 1e-5
    Embedder(net, device="cpu", precision="fp32")
    assert torch.get_num_threads() == threads


def test_nothing_gives_nothing_and_a_broken_image_says_so(jpegs: list[bytes]) -> None:
    embedder = Embedder(network(cut="layer1"), device="cpu", precision="fp32")
    assert embedder.embed_jpegs([]).shape == (0, 16)
    with pytest.raises(ValueError, match="the collection is damaged"):
        embedder.embed_jpegs([*jpegs, b"text"])


def test_other_sizes_are_resized(jpegs: list[bytes]) -> None:
    net = network(cut="layer2", image_size=32)
    assert Embedder(net, device="cpu", precision="fp32").embed_jpegs(jpegs[:2]).shape == (2, 16)


def test_a_part_holds_its_images_embeddings_and_is_not_done_again(tmp_path: Path) -> None:
    make_patterns(tmp_path / "collection", train=3, val=0, query=0, shots=3, part_size=5)
    collection, out = Folder.of(tmp_path / "collection"), Folder.of(tmp_path / "out")
    embedder = Embedder(network(cut="layer2"), device="cpu", precision="fp32")
    done = embed_part(embedder, collection, out, 1)
    assert (done["part"], done["taken"], done["kept"], done["dim"], done["resumed"]) == (1, 4, 4, 16, 0)
    assert (done["format"], done["engine"]) == ("float32", "torch")
    images, rows = collection.read_table(f"images/{part_name(1)}"), out.read_table(part_name(1))
    assert rows.column("image_id").to_pylist() == images.column("image_id").to_pylist()
    expected = embedder.embed_jpegs(images.column("jpeg").to_pylist())
    assert np.array_equal(np.stack(rows.column("embedding").to_pylist()).astype(np.float32), expected)
    written = (tmp_path / "out" / part_name(1)).stat().st_mtime_ns
    again = embed_part(embedder, collection, out, 1)
    assert (again["resumed"], again["sha256"]) == (1, done["sha256"]) == (1, hash_file(out, part_name(1)))
    assert (tmp_path / "out" / part_name(1)).stat().st_mtime_ns == written
    other = Embedder(network(cut="layer2"), device="cpu", precision="bf16")
    assert [embed_part(one, collection, out, 1)["format"] for one in (other, other)] == ["bfloat16"] * 2
    back = embed_part(embedder, collection, out, 1)
    assert (back["resumed"], back["format"], back["sha256"]) == (0, "float32", done["sha256"]), "of another format"
    out.write_bytes(part_name(0), out.read_bytes(part_name(1)))
    assert embed_part(embedder, collection, out, 0)["resumed"] == 0, "it has no marker: who knows what it is"
    first = collection.read_table(f"images/{part_name(0)}")["image_id"]
    assert out.read_table(part_name(0))["image_id"].to_pylist() == first.to_pylist()
    assert out.done(part_name(0)) is not None


def test_a_photo_that_ends_its_worker_is_in_the_books_and_the_others_are_embedded(tmp_path: Path) -> None:
    make_patterns(tmp_path / "collection", train=3, val=0, query=0, shots=3, part_size=5)
    collection, model, out = (Folder.of(tmp_path / name) for name in ("collection", "model", "out"))
    net = network(cut="layer2")
    save_bundle(net, model)
    embedder = Embedder(net, device="cpu", precision="fp32")
    begin_embeddings(collection, model, out, "fp32")
    names = collection.read_table(f"images/{part_name(1)}")["image_id"].to_pylist()
    whole = embed_part(embedder, collection, out, 0)
    done = embed_part(embedder, collection, out, 1, without={2: BadImage("timed-out", "not done within 3 s")})
    assert (done["taken"], done["kept"], done["broken"]) == (4, 3, 1)
    rows = out.read_table(part_name(1))["embedding"].to_pylist()
    assert [row is None for row in rows] == [False, False, True, False]
    with pytest.raises(
        ValueError, match="1 by torch in float32, 1 by torch in bfloat16. A gallery of both is not seal"
    ):
        seal_embeddings(collection, model, out, "fp32", [done, {**whole, "format": "bfloat16"}], 1.0)
    made = seal_embeddings(collection, model, out, "fp32", [done, whole], 1.0)
    books = [(book["taken"], book["kept"], book["rejected"]) for book in made.books]
    assert books == [(9, 8, {"timed-out": 1}), (8, 8, {})] and made.counts["num"] == 8
    assert left_out(out) == {names[2]: "timed-out"} and REJECTED in made.files


SHAPES = [(96, 64), (64, 96), (96, 64), (48, 80), (200, 100), (64, 96), (33, 40), (96, 64)]


@pytest.fixture(scope="module")
def shaped() -> list[bytes]:
    return [encode_jpeg(resize(pattern(i, 0), width, height)) for i, (height, width) in enumerate(SHAPES)]


def landmark_network(backbone: str = "resnet18", *, white: bool = False, **settings: object) -> EmbeddingNet:
    usual: dict[str, object] = {"pooling": "gem", "head": "none", "image_size": 96, "keep_aspect": True}
    net = network(backbone, **(usual | {"scales": (1.0, 2**-0.5, 0.5)} | settings))
    if not white:
        return net
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(12, net.base_dim, generator=generator)
    return with_whitening(net, drawn, torch.rand(net.base_dim, generator=generator) / net.base_dim, "learned")


@torch.no_grad()
def one_by_one(net: EmbeddingNet, jpegs: list[bytes]) -> np.ndarray:
    """A photo and a scale at a time: resize, trunk, GeM by its formula; then the mean, then the whitening."""
    config, out = net.spec.config, []
    p = float(net.pool.p.detach())  # type: ignore[arg-type, union-attr, operator]
    for jpeg in jpegs:
        pixels = torch.from_numpy(decode_fit(jpeg, config.image_size)).double() / 255
        image = ((pixels - torch.tensor(net.spec.mean)) / torch.tensor(net.spec.std)).permute(2, 0, 1)[None].float()
        sides = []
        for x in (image, image.flip(3)) if config.flip else (image,):
            total, num = 0.0, 0
            for scale in config.scales:
                size = [int(side * scale) for side in x.shape[2:]]
                if min(size) < 32:
                    continue
                small = torch.nn.functional.interpolate(x, size=size, mode="bilinear") if scale != 1 else x
                maps = net.trunk(small)[0].double().clamp(min=1e-6)
                vector = maps.pow(p).mean(dim=(1, 2)).pow(1 / p)
                total, num = total + (vector / vector.norm()).pow(p), num + 1
            v = (torch.as_tensor(total) / num).pow(1 / p)
            v = v / v.norm()
            if net.spec.whitening != "none":
                v = net.whitening_projection.double() @ (v - net.whitening_mean.double())
                v = v / v.norm()
            sides.append(v)
        v = sum(sides[1:], sides[0])
        out.append((v / v.norm()).numpy())
    return np.stack(out)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_shapes_in_groups_equal_photos_one_by_one(shaped: list[bytes], backbone: str, white: bool, flip: bool) -> None:
    net = landmark_network(backbone, white=white, flip=flip)
    got = Embedder(net, device="cpu", precision="fp32", batch_size=3).embed_jpegs(shaped)
    assert got.shape == (len(SHAPES), net.dim) and got.dtype == np.float32
    assert np.abs(got - one_by_one(net, shaped)).max() < 2e-5


def test_shapes_in_groups_stay_close_in_bfloat16(shaped: list[bytes]) -> None:
    net = landmark_network()
    got = Embedder(net, device="cpu", precision="bf16").embed_jpegs(shaped)
    assert (got * one_by_one(net, shaped)).sum(axis=1).min() >= 0.995


def test_a_batch_holds_one_shape_and_no_more_pixels_than_a_batch_of_squares(shaped: list[bytes]) -> None:
    embedder = Embedder(landmark_network(cut="layer1"), device="cpu", precision="fp32", batch_size=1)
    batches = embedder._batches(shaped)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(SHAPES)))
    groups = sorted(sorted(batch.tolist()) for batch in batches)
    assert groups == [[0, 2, 7], [1, 5], [3], [4], [6]]  # 200 x 100 becomes 96 x 48
    large = [encode_jpeg(np.zeros((180, 240, 3), np.uint8))] * 5
    # Of 224^2 / (180 * 240) = 1.16 photos to a square: two squares as asked, or the four that a CPU's cache holds.
    for batch_size, sizes in ((2, [2, 2, 1]), (6, [4, 1])):
        net = landmark_network(cut="layer1", image_size=240)
        wide = Embedder(net, device="cpu", precision="fp32", batch_size=batch_size)
        assert [len(batch) for batch in wide._batches(large)] == sizes


@pytest.mark.parametrize("backbone", ["resnet18", "vgg11"])
def test_tiny_photos_and_no_photos_have_embeddings(backbone: str) -> None:
    embedder = Embedder(landmark_network(backbone), device="cpu", precision="fp32")
    tiny = [encode_jpeg(np.full((*shape, 3), 90, np.uint8)) for shape in ((3, 3), (2, 300), (1, 1))]
    got = embedder.embed_jpegs(tiny)
    assert np.abs(np.linalg.norm(got, axis=1) - 1).max() < 1e-4
    told: list[tuple[str, int, int]] = []
    embedder.embed_jpegs(tiny, lambda *word: told.append(word))
    assert told[-1] == ("photos", 3, 3) and sorted(told) == told
    assert embedder.embed_jpegs([]).shape == (0, embedder.dim)
    with pytest.raises(ValueError, match="the collection is damaged"):
        embedder.embed_jpegs([*tiny, b"text"])


def test_a_transformer_takes_any_shape_and_is_not_folded(shaped: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def small(**_: object) -> tv.VisionTransformer:
        return tv.VisionTransformer(image_size=64, patch_size=16, num_layers=1, num_heads=2, hidden_dim=32, mlp_dim=64)

    monkeypatch.setattr(tv, "vit_b_16", small)
    net = landmark_network("vit_b_16")
    got = Embedder(net, device="cpu", precision="fp32", batch_size=3).embed_jpegs(shaped)
    assert got.shape == (len(SHAPES), 32)
    assert np.abs(got - one_by_one(net, shaped)).max() < 2e-5
