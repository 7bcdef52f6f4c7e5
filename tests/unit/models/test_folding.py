"""A trunk rewritten for training is the same function, with the same gradients, of the same parameters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from retrieval.models import backbones, folding
from tests.support.networks import drawn_vgg, with_statistics


def trunk_of(name: str) -> nn.Sequential:
    """In float64, its BatchNorms with statistics of their own."""
    torch.manual_seed(0)
    trunk = drawn_vgg(name) if name.startswith("vgg") else backbones.build_trunk(name)
    return with_statistics(trunk).double()


def photos() -> Tensor:
    return torch.randn(3, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def maps_and_gradients(run: Callable[[Tensor], Tensor], trunk: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    trunk.zero_grad(set_to_none=True)
    maps = torch.cat([run(batch) for batch in batches])
    maps.square().sum().backward()
    return [maps.detach(), *(p.grad.clone() for p in trunk.parameters() if p.grad is not None)]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) > 10
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12 * float(theirs.abs().max() + 1))


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("name", "batchnorms", "relus"),
    # DenseNet's first BatchNorm of a layer follows no convolution; VGG-11 has none. A ReLU stays where a pool, a sum or
    # the caller reads its output: in ResNet-18 after each block's sum and before the pool.
    [
        ("mobilenet_v2", 0, 1),
        ("resnet18", 0, 9),
        ("densenet121", 62, 63),
        ("efficientnet_b0", 0, 0),
        ("vgg11", 0, 5),
    ],
)
def test_maps_and_gradients_are_the_same(name: str, batchnorms: int, relus: int, held: bool) -> None:
    trunk, x = trunk_of(name), photos()
    rewritten = folding.rewrite(trunk)
    ran: list[nn.Module] = []
    hooks = [
        layer.register_forward_pre_hook(lambda module, _: ran.append(module))
        for layer in rewritten.modules()
        if isinstance(layer, nn.BatchNorm2d | nn.ReLU | nn.ReLU6)
    ]
    rewritten(x[:1])
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in ran) == batchnorms
    assert sum(isinstance(layer, nn.ReLU | nn.ReLU6) for layer in ran) == relus
    for hook in hooks:
        hook.remove()
    expected = maps_and_gradients(trunk, trunk, [x])
    with folding.products_held(rewritten) if held else contextlib.nullcontext():
        assert_equal(maps_and_gradients(rewritten, trunk, [x[:1], x[1:]]), expected)
    assert_equal(maps_and_gradients(trunk, trunk, [x]), expected)  # the trunk itself is as it was


def test_products_are_taken_once_for_all_batches_of_a_step_and_anew_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trunk, x = trunk_of("mobilenet_v2"), photos()
    rewritten, taken = folding.rewrite(trunk), []
    product = folding._Folded.product
    monkeypatch.setattr(folding._Folded, "product", lambda self: taken.append(self) or product(self))
    with folding.products_held(rewritten):
        before = rewritten(x), rewritten(x)
    assert len(taken) == 52 and torch.equal(*before)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.mul_(1.01)
    assert torch.allclose(rewritten(x), trunk(x)) and not torch.allclose(rewritten(x), before[0])


def test_a_relu_that_a_sum_reads_does_not_change_the_gradient_of_the_sum_s_other_branch() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.second = nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(x) + self.relu(self.first(x))

    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 1), *(Block() for _ in range(3))).double()
    rewritten, x = folding.rewrite(block), photos()
    assert_equal(maps_and_gradients(rewritten, block, [x]), maps_and_gradients(block, block, [x]))


def test_in_bfloat16_the_gradient_keeps_its_direction() -> None:
    trunk, x = trunk_of("resnet18").float(), photos().float()
    rewritten = folding.rewrite(trunk)
    exact = maps_and_gradients(trunk, trunk, [x])
    with torch.autocast("cpu", dtype=torch.bfloat16), folding.products_held(rewritten):
        rounded = maps_and_gradients(rewritten, trunk, [x])
    ours, theirs = (torch.cat([value.double().flatten() for value in found[1:]]) for found in (rounded, exact))
    cosine = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))
    assert 0.99 < cosine < 1 - 1e-7  # it is rounded, and no more


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "left"), [("resnet18", 0), ("densenet121", 62), ("efficientnet_b0", 0), ("mobilenet_v2", 0), ("vgg11", 0)]
)
def test_folding_for_inference_changes_nothing_but_the_batchnorms(name: str, left: int) -> None:
    """DenseNet's first BatchNorm of a layer reads a sum of maps, not a convolution, and stays."""
    trunk, x = trunk_of(name), photos()
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    expected = trunk(x)
    folded = folding.fold(trunk)
    assert torch.allclose(folded(x), expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules()) == left
    for parameter in folded.parameters():
        parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in trunk.state_dict().items())


def test_a_map_that_is_read_twice_is_not_clamped_in_place() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.second = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.first(x)
            return self.second(self.relu(maps)) + maps

    torch.manual_seed(0)
    block, x = nn.Sequential(Block()).double(), photos()
    with torch.no_grad():
        assert torch.allclose(folding.rewrite(block)(x), block(x), atol=1e-12)


def test_no_silu_runs_in_place() -> None:
    rewritten = folding.rewrite(backbones.build_trunk("efficientnet_b0"))
    assert isinstance(rewritten, torch.fx.GraphModule)
    called = [rewritten.get_submodule(str(node.target)) for node in rewritten.graph.nodes if node.op == "call_module"]
    found = [layer for layer in called if isinstance(layer, nn.SiLU)]
    assert len(found) > 30 and not any(layer.inplace for layer in found)


@pytest.mark.parametrize("padding", ["zeros", "reflect", "circular"])
def test_convolutions_of_every_kind_are_run_as_they_are(padding: Literal["zeros", "reflect", "circular"]) -> None:
    """Strides, gaps and groups; other edges than zeros are PyTorch's own affair, and stay as they were."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    layers += [nn.Conv2d(6, 4, 3, stride=2, padding=2, dilation=2, groups=2, bias=False, padding_mode=padding)]
    trunk = with_statistics(nn.Sequential(*layers, nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))).double().eval()
    x = photos()
    with torch.no_grad():
        assert torch.allclose(folding.fold(trunk)(x), trunk(x), atol=1e-12)
    expected = maps_and_gradients(trunk, trunk, [x])
    found = maps_and_gradients(folding.rewrite(trunk), trunk, [x])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_convolution_that_something_else_reads_too_keeps_its_batchnorm() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.relu = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            return maps + self.relu(self.norm(maps))

    trunk, x = with_statistics(nn.Sequential(Block())).double().eval(), photos()
    with torch.no_grad():
        assert torch.equal(folding.fold(trunk)(x), trunk(x))
        assert torch.equal(folding.rewrite(trunk)(x), trunk(x))


def test_others_compute_while_one_thread_folds() -> None:
    """A service answers with one network while it loads another."""
    running, other = folding.fold(trunk_of("mobilenet_v2").eval()), trunk_of("resnet18").eval()
    batch, stop, computed = photos(), threading.Event(), []
    with torch.inference_mode():
        expected, wanted = running(batch), other(batch)

    def compute() -> None:
        with torch.inference_mode():
            while not stop.is_set():
                computed.append(torch.equal(running(batch), expected))

    def fold_twice(_: int) -> Tensor:
        with torch.inference_mode():
            return folding.fold(folding.fold(other))(batch)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(compute) for _ in range(2)]
        found = list(pool.map(fold_twice, range(4)))
        stop.set()
        for client in clients:
            client.result()  # raises what it met
    assert all(computed) and computed
    assert all(torch.allclose(one, wanted) for one in found)
    assert nn.Module.__call__.__name__ == "_wrapped_call_impl", "PyTorch's own call is back in its place"
