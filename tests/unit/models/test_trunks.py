"""Cuts, freezing and splitting change nothing; blocks are the trunk; bad places are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retrieval.models.backbones import TransformerTrunk, build_trunk
from retrieval.models.trunks import blocks, cut_after, freeze_all_but_last, layers_in_forward_order, split_frozen, units
from tests.support.networks import drawn_vgg, on_meta, photos, small_transformer


@pytest.fixture(scope="module")
def trunks() -> dict[str, nn.Sequential]:
    """One small network of each family, with numbers."""
    vgg = drawn_vgg("vgg16")
    return {"resnet18": build_trunk("resnet18"), "mobilenet_v2": build_trunk("mobilenet_v2"), "vgg16": vgg}


@pytest.mark.parametrize(
    ("name", "layer", "last"),
    [("resnet18", "layer3", "layer3"), ("resnet18", "layer4.0", "layer4"), ("mobilenet_v2", "features.3", "features")],
)
def test_a_cut_trunk_gives_that_layer_s_output(
    trunks: dict[str, nn.Sequential], name: str, layer: str, last: str
) -> None:
    trunk, seen = trunks[name], []
    handle = trunk.get_submodule(layer).register_forward_hook(lambda _module, _args, out: seen.append(out))
    with torch.no_grad():
        trunk(photos())
        handle.remove()
        cut = cut_after(trunk, layer)
        assert torch.equal(cut(photos()), seen[0])
    assert list(dict(cut.named_children()))[-1] == last
    assert set(cut.state_dict()) < set(trunk.state_dict())  # names are kept


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("layer9", "no layer 'layer9'. Cut after one of: conv1, bn1, .*layer4"),
        ("features.99", "no layer '99'. Cut after one of: 0, 1, .*18"),
        ("layer4.0.conv1", "Cannot cut inside '0', it is one block"),
        ("relu.0", "Cannot cut inside 'relu', it is one block"),
    ],
)
def test_no_such_place_to_cut_is_said_in_words(trunks: dict[str, nn.Sequential], layer: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cut_after(trunks["mobilenet_v2" if "features" in layer else "resnet18"], layer)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vgg16"])
@pytest.mark.parametrize("num_layers", [0, 1, 10, None])
def test_frozen_prefix_and_tail_are_the_trunk(
    trunks: dict[str, nn.Sequential], name: str, num_layers: int | None
) -> None:
    trunk = trunks[name]
    unfrozen = freeze_all_but_last(trunk, num_layers)
    frozen, tail = split_frozen(trunk)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    trained = {id(parameter) for parameter in tail.parameters() if parameter.requires_grad}
    assert trained == {id(trunk.get_parameter(name)) for name in unfrozen}
    assert bool(trained) == (num_layers not in (0, 1))  # the very last layer is an activation, without parameters
    assert len(list(frozen)) + len(list(tail)) == len(list(units(trunk)))
    with torch.no_grad():
        assert torch.equal(tail(frozen(photos())), trunk(photos()))
        if num_layers is None:
            assert len(frozen) == 0
        else:
            assert frozen(photos()).shape != photos().shape


def test_last_ten_layers_of_mobilenet_v2() -> None:
    trunk = on_meta("mobilenet_v2")
    names = [name for name, _ in trunk.named_parameters()]
    unfrozen = freeze_all_but_last(trunk, 10)
    assert unfrozen == names[names.index("features.17.conv.0.1.weight") :]
    assert "features.17.conv.0.0.weight" not in unfrozen


def test_last_ten_layers_of_resnet50_are_its_last_block() -> None:
    trunk = on_meta("resnet50")
    expected = [name for name, _ in trunk.named_parameters() if name.startswith("layer4.2.")]
    assert freeze_all_but_last(trunk, 10) == expected
    assert len(expected) == 9  # three convolutions, three norms of two; and the ReLU that is called three times: 9 + 1


def test_every_call_of_a_shared_activation_is_a_layer() -> None:
    trunk = on_meta("resnet18")
    called = layers_in_forward_order(trunk)
    block = trunk.get_submodule("layer4.1")
    kinds = [type(layer).__name__ for layer in called[-6:]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU"]
    assert called[-6] is block.get_submodule("conv1") and called[-1] is called[-4] is block.get_submodule("relu")


def test_a_negative_number_of_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more, got -2"):
        freeze_all_but_last(on_meta("resnet18"), -2)


def test_a_transformer_is_one_block() -> None:
    trunk = TransformerTrunk(small_transformer())
    with pytest.raises(ValueError, match="this network is one block here. Leave the cut empty"):
        cut_after(trunk, "encoder")
    assert list(units(trunk)) == [trunk]
    kinds = [type(layer).__name__ for layer in layers_in_forward_order(trunk)]
    assert kinds == [
        "Conv2d",
        *(["LayerNorm", "MultiheadAttention", "LayerNorm", "Linear", "GELU", "Linear"] * 2),
        "LayerNorm",
    ]
    unfrozen = freeze_all_but_last(trunk, 6)
    assert unfrozen[0].endswith("encoder_layer_1.self_attention.in_proj_weight") and len(unfrozen) == 12
    frozen, tail = split_frozen(trunk)
    assert (len(frozen), len(tail)) == (0, 1)
    trunk.requires_grad_(False)
    assert [len(part) for part in split_frozen(trunk)] == [1, 0]


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "densenet121", "efficientnet_b0", "vgg11", "vit_b_32"])
def test_blocks_are_the_trunk_and_keep_a_batchnorm_with_its_convolution(name: str) -> None:
    trunk = drawn_vgg(name) if name.startswith("vgg") else build_trunk(name)
    chain, x = list(blocks(trunk)), photos()
    got = x
    for block in chain:
        assert not isinstance(block[0], nn.BatchNorm2d | nn.ReLU) or block is chain[0]
        got = block(got)
    assert torch.equal(got, trunk(x))
    assert {"vit_b_32": 1, "resnet18": 9}.get(name, len(chain)) == len(chain)
    if name == "resnet18":
        assert [type(part).__name__ for part in chain[0]] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]


def test_looking_at_the_layers_leaves_no_trace() -> None:
    trunk = build_trunk("resnet18").train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    layers_in_forward_order(trunk)
    assert trunk.training and not any(module._forward_pre_hooks for module in trunk.modules())
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_units_open_what_only_calls_its_children_in_turn() -> None:
    class Other(nn.Sequential):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input + super().forward(input)

    a, b, c, d = nn.Conv2d(3, 3, 1), nn.ReLU(), Other(nn.Conv2d(3, 3, 1)), nn.Sigmoid()
    assert list(units(nn.Sequential(a, nn.Sequential(b, nn.Sequential(c)), d))) == [a, b, c, d]
    with pytest.raises(ValueError, match="Cannot cut"):
        cut_after(nn.Sequential(Other(a)), "0.0")


def test_frozen_is_what_comes_before_the_first_layer_that_trains() -> None:
    """A frozen layer between trained ones stays in the tail; layers without parameters are with those before them."""
    layers = [nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)]
    trunk = nn.Sequential(*layers)
    for number, trained in enumerate([False, None, True, None, False]):
        if trained is not None:
            layers[number].requires_grad_(trained)
    frozen, tail = split_frozen(trunk)
    assert (list(frozen), list(tail)) == (layers[:2], layers[2:])


def test_freezing_again_forgets_what_was_frozen_before() -> None:
    trunk = on_meta("resnet18")
    every = [name for name, _ in trunk.named_parameters()]
    assert freeze_all_but_last(trunk, 0) == []
    assert freeze_all_but_last(trunk, 2) == ["layer4.1.bn2.weight", "layer4.1.bn2.bias"]
    assert freeze_all_but_last(trunk, None) == every


def test_dropout_and_depth_are_no_layers() -> None:
    counted = [type(layer).__name__ for layer in layers_in_forward_order(chain_with_dropout())]
    assert counted == ["Conv2d", "ReLU", "Conv2d"]


def chain_with_dropout() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5), nn.ReLU(), nn.Identity(), nn.Conv2d(3, 3, 1))


def test_blocks_begin_where_a_convolution_does() -> None:
    layers = [nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.MaxPool2d(2)]
    assert [list(block) for block in blocks(nn.Sequential(*layers))] == [layers[:4], layers[4:]]
    assert [list(block) for block in blocks(nn.Sequential(*layers[1:]))] == [layers[1:4], layers[4:]]
