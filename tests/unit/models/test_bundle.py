"""What is saved comes back equal, what was changed is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.history import CURVES, TUPLES_SHEET, read_history, write_history
from retrieval.artifacts.manifest import read_manifest
from retrieval.models import bundle, network, pooling
from retrieval.models.embedder import Embedder
from retrieval.models.spec import load_spec, preparation_of
from tests.support.networks import GEM, SMALL, embed, photos, whitening

OLD = Path(__file__).parents[2] / "data/bundles"


def test_a_seed_decides_a_fresh_network_and_leaves_the_global_draws_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = bundle.digest_of(bundle.build(SMALL, seed=1))
    assert torch.equal(torch.rand(3), expected)
    assert first == bundle.digest_of(bundle.build(SMALL, seed=1)) != bundle.digest_of(bundle.build(SMALL, seed=2))


def test_bundle_comes_back_equal(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, pooling="gem", flip=True)
    net = bundle.build(config, preparation={"crop": "none", "size": 64})
    with torch.no_grad():
        net.pool.p.fill_(2.5)  # type: ignore[operator, union-attr]
    manifest = bundle.save_bundle(net, tmp_path / "bundle", inputs={"collection": "abc"}, counts={"epochs": 3})
    assert net.fingerprint == manifest.fingerprint
    other = bundle.load_bundle(tmp_path / "bundle")
    assert torch.equal(embed(other), embed(net))
    assert (other.spec, other.fingerprint, other.training) == (net.spec, net.fingerprint, False)
    assert load_spec(tmp_path / "bundle") == net.spec
    assert manifest.counts == {"epochs": 3, "parameters": sum(p.numel() for p in net.parameters()), "embedding_dim": 16}
    assert manifest.inputs == {"collection": "abc"}


def test_files_of_the_run_are_sealed_with_the_bundle(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "bundle")
    folder.write_json("history.json", [1])
    folder.write_bytes("curves.png", b"drawn")
    folder.write_bytes("tuples.jpg", b"drawn")
    sealed = bundle.save_bundle(bundle.build(SMALL), folder, run={"seconds": 1.5})
    assert sealed == read_manifest(folder, "model")
    assert set(sealed.files) == {"history.json", "model.json", "model.safetensors"}
    assert (set(sealed.aside), sealed.run) == ({"curves.png", "tuples.jpg"}, {"seconds": 1.5})


def test_what_a_bundle_tells_of_its_training_goes_on_to_those_made_of_it(tmp_path: Path) -> None:
    rows = [{"epoch": 0, "val/mAP": 0.5}, {"epoch": 1, "train/loss": 0.5, "seconds/train": 2.0}]
    sealed = []
    for name, seconds in (("trained", 2.0), ("again", 3.0)):
        folder, made_of = Folder.of(tmp_path / name), Folder.of(tmp_path / f"{name}-scaled")
        folder.write_bytes(CURVES, name.encode())
        folder.write_bytes(TUPLES_SHEET, name.encode())
        run = write_history(folder, [rows[0], rows[1] | {"seconds/train": seconds}])
        sealed.append(bundle.save_bundle(bundle.build(SMALL), folder, run=run, counts={"best_epoch": 1, "images": 5}))
        kept = bundle.kept_counts(sealed[-1])
        sealed.append(
            bundle.save_bundle(bundle.build(SMALL), made_of, run=bundle.keep_history(folder, made_of), counts=kept)
        )
        assert read_history(made_of) == [rows[0], rows[1] | {"seconds/train": seconds}]
        assert made_of.read_bytes(TUPLES_SHEET) == name.encode() and set(sealed[-1].aside) == {"tuples.jpg"}
    assert sealed[0].fingerprint == sealed[2].fingerprint and sealed[1].fingerprint == sealed[3].fingerprint
    assert sealed[1].counts["best_epoch"] == 1 and "images" not in sealed[1].counts
    untrained = Folder.of(tmp_path / "untrained")
    bundle.save_bundle(bundle.build(SMALL), untrained)
    assert bundle.keep_history(untrained, Folder.of(tmp_path / "of-untrained")) == {}
    assert Folder.of(tmp_path / "of-untrained").list() == {}


def test_tampered_weights_are_refused(tmp_path: Path) -> None:
    bundle.save_bundle(bundle.build(SMALL), tmp_path)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="is not the file that was sealed.*Copy the bundle again"):
        bundle.load_bundle(tmp_path)


def test_an_unsealed_or_other_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No sealed model at .* does not exist"):
        bundle.load_bundle(tmp_path / "absent")
    net = bundle.build(SMALL)
    bundle.save_bundle(net, tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match="No sealed model"):
        bundle.load_bundle(tmp_path)


def test_weights_may_be_another_bundle_whose_trunk_pool_and_head_are_taken(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, pooling="gem")
    net = bundle.build(config, seed=1)
    bundle.save_bundle(net, tmp_path)
    again = bundle.build(config, weights=str(tmp_path), seed=2)
    assert bundle.digest_of(again) == bundle.digest_of(net)
    wider = bundle.build(dataclasses.replace(config, embedding_dim=8), weights=str(tmp_path), seed=2)
    assert bundle.digest_of(wider.trunk) == bundle.digest_of(net.trunk)
    assert wider.dim == 8
    with pytest.raises(ValueError, match=r"has trunk resnet18 cut 'layer2'.*asks for resnet18 cut 'layer3'"):
        bundle.build(dataclasses.replace(SMALL, cut="layer3"), weights=str(tmp_path))


def test_weights_of_the_trunk_come_from_a_file(tmp_path: Path) -> None:
    whole = bundle.build(dataclasses.replace(SMALL, cut=""), seed=3)
    torch.save(whole.trunk.state_dict(), tmp_path / "net.pth")
    net = bundle.build(SMALL, weights=str(tmp_path / "net.pth"))
    for name, value in net.trunk.state_dict().items():
        assert torch.equal(value, whole.trunk.state_dict()[name])
    (tmp_path / "net.txt").write_text("no weights")
    with pytest.raises(ValueError, match="not a readable weights file"):
        bundle.build(SMALL, weights=str(tmp_path / "net.txt"))


def test_a_linear_head_starts_from_the_whitening_of_a_bundle(tmp_path: Path) -> None:
    """W = P, b = -P m: the first embedding is the whitened one."""
    single = dataclasses.replace(GEM, scales=(1.0,))
    white = network.with_whitening(bundle.build(single, seed=1), *whitening(16, 128), "pca")
    bundle.save_bundle(white, tmp_path)
    net = bundle.build(dataclasses.replace(single, head="linear", embedding_dim=16), weights=str(tmp_path), seed=2)
    assert isinstance(net.head, nn.Linear) and net.dim == 16 and net.head.weight.requires_grad
    assert torch.allclose(embed(net), embed(white), atol=1e-5)
    fresh = bundle.build(dataclasses.replace(single, head="linear", embedding_dim=8), weights=str(tmp_path), seed=2)
    assert embed(fresh).shape == (3, 8)


def test_gem_s_powers_are_as_many_as_the_channels_and_survive_the_bundle(tmp_path: Path) -> None:
    net = bundle.build(dataclasses.replace(GEM, gem_per_channel=True))
    power = net.pool.get_parameter("p")
    assert power.shape == (128,) and net.dim == 128
    with torch.no_grad():
        power.copy_(torch.linspace(1, 5, 128))
        expected = pooling.l2n(pooling.gem(net.trunk(photos(3)), power[:, None, None]))
    bundle.save_bundle(net, tmp_path)
    assert torch.equal(bundle.load_bundle(tmp_path).pool.get_parameter("p"), power)
    single = network.with_scales(net, [1.0])
    assert torch.allclose(embed(single), expected, atol=1e-6)
    shared = bundle.build(GEM, weights=str(tmp_path))  # another kind of pooling: its own p, the trunk taken
    assert shared.pool.get_parameter("p").shape == ()
    assert bundle.digest_of(shared.trunk) == bundle.digest_of(net.trunk)


def test_a_bundle_from_before_these_settings_loads(tmp_path: Path) -> None:
    net = bundle.build(SMALL)
    bundle.save_bundle(net, tmp_path)
    spec = json.loads((tmp_path / "model.json").read_text())
    for name in ("keep_aspect", "scales", "gem_per_channel"):
        del spec["config"][name]
    del spec["whitening"], spec["whitening_dim"]
    (tmp_path / "model.json").write_text(json.dumps(spec))
    assert torch.equal(embed(bundle.load_bundle(tmp_path)), embed(net))


@pytest.mark.parametrize("name", ["squares", "whitened"])
def test_bundles_that_were_made_long_ago_load_and_embed_as_they_did(name: str) -> None:
    """Made and run before whitening left the model's settings: tests/data/README.md."""
    embedder = Embedder(str(OLD / name), device="cpu", precision="fp32")
    assert embedder.fingerprint == json.loads((OLD / name / "manifest.json").read_text())["fingerprint"]
    expected = json.loads((OLD / "embeddings.json").read_text())[name]
    (got,) = embedder.embed_jpegs([(OLD / "photo.jpg").read_bytes()])
    assert got.tolist() == pytest.approx(expected, abs=2e-5)
    kept = preparation_of(Folder.of(OLD / name))
    assert (kept.crop, kept.size) == (("none", 64) if name == "squares" else ("fit", 80))


def test_the_digest_tells_every_tensor_and_name_apart() -> None:
    def of(**tensors: float) -> str:
        net = nn.Module()
        for name, value in tensors.items():
            net.register_buffer(name, torch.tensor([value, 1.0]))
        return bundle.digest_of(net)

    assert of(a=1, b=2) == of(b=2, a=1) == of(a=1, b=2)
    assert len({of(a=1, b=2), of(a=2, b=1), of(a=1, c=2), of(a=1), of(a=1, b=3), of(a=2, b=2)}) == 6
    assert bundle.digest_of(nn.Linear(2, 2)) != bundle.digest_of(nn.Linear(2, 2))


def test_a_head_of_another_kind_or_length_is_not_taken(tmp_path: Path) -> None:
    net = bundle.build(dataclasses.replace(SMALL, head="linear", pooling="grid", grid=1), seed=1)
    bundle.save_bundle(net, tmp_path)
    for change in ({"embedding_dim": 8}, {"pooling": "avg"}, {"grid": 3}, {"head": "mlp"}):
        other = bundle.build(dataclasses.replace(net.spec.config, **change), weights=str(tmp_path), seed=2)  # type: ignore[arg-type]
        fresh = bundle.build(other.spec.config, seed=2)
        assert bundle.digest_of(other.head) == bundle.digest_of(fresh.head) != bundle.digest_of(net.head)
        assert bundle.digest_of(other.trunk) == bundle.digest_of(net.trunk)
    same = bundle.build(net.spec.config, weights=str(tmp_path), seed=2)
    assert bundle.digest_of(same) == bundle.digest_of(net)


@pytest.mark.parametrize("dim", [16, 4])
def test_a_head_under_whitening_is_taken_by_its_own_length(tmp_path: Path, dim: int) -> None:
    """The bundle's embeddings have 4 numbers, its head 16: a head of 16 is the same, one of 4 is not."""
    net = bundle.build(dataclasses.replace(SMALL, embedding_dim=16), seed=1)
    bundle.save_bundle(network.with_whitening(net, *whitening(4, 16), "pca"), tmp_path)
    other = bundle.build(dataclasses.replace(SMALL, embedding_dim=dim), weights=str(tmp_path), seed=2)
    assert other.dim == dim
    assert (bundle.digest_of(other.head) == bundle.digest_of(net.head)) == (dim == 16)


def test_pooling_s_powers_are_taken_where_they_are_of_one_kind(tmp_path: Path) -> None:
    net = bundle.build(dataclasses.replace(GEM, scales=(1.0,)), seed=1)
    with torch.no_grad():
        net.pool.get_parameter("p").fill_(2.25)
    bundle.save_bundle(net, tmp_path)
    for change, power in (({}, 2.25), ({"gem_per_channel": True}, 3.0)):
        other = bundle.build(dataclasses.replace(net.spec.config, **change), weights=str(tmp_path))  # type: ignore[arg-type]
        assert set(other.pool.get_parameter("p").reshape(-1).tolist()) == {power}


def test_a_seal_says_what_it_was_made_with(tmp_path: Path) -> None:
    net = bundle.build(SMALL)
    sealed = bundle.save_bundle(net, tmp_path / "a", config={"rate": 1, "workers": 2}, ignore=["workers"])
    assert sealed.config == {"rate": 1}
    plain_ = bundle.save_bundle(net, tmp_path / "b")
    assert plain_.config == net.spec.plain and plain_.inputs == {}
    assert "network" not in plain_.config, "a trained network's seal is what it was before there were frozen ones"
    assert bundle.save_bundle(net, tmp_path / "c").fingerprint == plain_.fingerprint
    with torch.no_grad():
        net.get_submodule("head.0").get_parameter("bias")[0] += 1e-3
    assert bundle.save_bundle(net, tmp_path / "d").fingerprint != plain_.fingerprint


def test_a_start_is_sealed_once_and_refuses_another_network_s_folder(tmp_path: Path) -> None:
    out = Folder.of(tmp_path / "start")
    net = bundle.build(SMALL, seed=1)
    bundle.save_start(net, out)
    sealed = read_manifest(out, "model")
    assert sealed.inputs == {"weights": bundle.digest_of(net)} and sealed.fingerprint == net.fingerprint
    bundle.save_start(bundle.build(SMALL, seed=1), out)
    assert read_manifest(out, "model") == sealed
    with pytest.raises(ValueError, match="other settings or inputs .*inputs.weights"):
        bundle.save_start(bundle.build(SMALL, seed=2), out)


def test_a_scaled_bundle_is_the_network_with_scales_and_tells_of_its_training(tmp_path: Path) -> None:
    trained, out = Folder.of(tmp_path / "trained"), Folder.of(tmp_path / "scaled")
    run = write_history(trained, [{"epoch": 0, "val/mAP": 0.5, "seconds/train": 2.0}])
    net = bundle.build(dataclasses.replace(GEM, scales=(1.0,)), preparation={"crop": "fit"})
    first = bundle.save_bundle(net, trained, run=run, counts={"best_epoch": 0, "images": 9})
    bundle.save_scaled(trained, out, (1.0, 0.5))
    sealed, other = read_manifest(out, "model"), bundle.load_bundle(out)
    assert sealed.inputs == {"model": first.fingerprint} and "images" not in sealed.counts
    assert sealed.counts["best_epoch"] == 0 and read_history(out) == read_history(trained)
    assert other.spec == dataclasses.replace(net.spec, config=dataclasses.replace(net.spec.config, scales=(1.0, 0.5)))
    assert torch.equal(embed(other), embed(network.with_scales(net, (1.0, 0.5))))
    bundle.save_scaled(trained, out, (1.0, 0.5))
    assert read_manifest(out, "model") == sealed
    with pytest.raises(ValueError, match="other settings or inputs"):
        bundle.save_scaled(trained, out, (1.0, 0.7))
