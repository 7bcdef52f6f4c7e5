"""A trunk rewritten for training: the same function and gradients of the same parameters, moving less memory.

On a CPU most of a training step is not arithmetic but maps that are written, kept for the gradient and read again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.fx import Node


def rewrite(module: nn.Sequential) -> nn.Module:
    """The same function of the same parameters, with frozen BatchNorm statistics; `module` stays as it is.

    - A BatchNorm runs as part of the convolution before it: BN(w * x) = (w s) * x + (b - m s), s = g / sqrt(v + eps).
      The product is taken anew at each call (or see `products_held`), so gradients reach w, g and b as they would.
      One that follows no convolution, or a convolution whose output is used elsewhere too, stays.
    - A ReLU or ReLU6 between convolutions keeps its output alone, which the next convolution keeps anyway. PyTorch's
      ReLU6 in place keeps a copy of its input.
    - A SiLU is not in place, for the same reason.
    """
    traced = torch.fx.symbolic_trace(module)
    modules: dict[str, nn.Module] = dict(traced.named_modules())

    def module_of(node: Node) -> nn.Module | None:
        return modules[str(node.target)] if node.op == "call_module" else None

    def put(node: Node, new: nn.Module, name: str) -> None:
        traced.add_submodule(name, new)
        modules[name], node.target = new, name

    for at, node in enumerate(list(traced.graph.nodes)):
        before = node.args[0] if node.args and isinstance(node.args[0], Node) else node
        own, input_, alone = module_of(node), module_of(before), len(before.users) == 1
        if isinstance(own, nn.BatchNorm2d) and isinstance(input_, nn.Conv2d) and alone:
            put(before, _Folded(input_, own), str(before.target))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
        elif isinstance(own, nn.ReLU | nn.ReLU6) and isinstance(input_, _Folded | nn.Conv2d) and alone:
            if all(isinstance(module_of(user), nn.Conv2d) for user in node.users):
                put(node, _Clamp(6.0 if isinstance(own, nn.ReLU6) else float("inf")), f"clamp_{at}")
        elif isinstance(own, nn.SiLU):
            put(node, nn.SiLU(), f"silu_{at}")
    traced.recompile()
    return traced


@contextlib.contextmanager
def products_held(*rewritten: nn.Module) -> Iterator[None]:
    """Within it, each convolution's product with its BatchNorm is taken once, for all batches of a step.

    The parameters must not change within it. Their gradients come as without it, through the one product.
    """
    folded = [part for module in rewritten for part in module.modules() if isinstance(part, _Folded)]
    for part in folded:
        part.held = part.product()
    try:
        yield
    finally:
        for part in folded:
            part.held = None


class _Folded(nn.Module):
    """A convolution and the BatchNorm after it, in one."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm
        self.held: tuple[Tensor, Tensor] | None = None

    def product(self) -> tuple[Tensor, Tensor]:
        """The weight and bias of the convolution that does both."""
        conv, norm = self.conv, self.norm
        assert norm.running_var is not None and norm.running_mean is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        offset = (-norm.running_mean if conv.bias is None else conv.bias - norm.running_mean) * scale
        return conv.weight * scale[:, None, None, None], norm.bias + offset

    def forward(self, x: Tensor) -> Tensor:
        return self.conv._conv_forward(x, *(self.held or self.product()))


class _Clamp(nn.Module):
    """min(max(x, 0), high), in place."""

    def __init__(self, high: float) -> None:
        super().__init__()
        self.high = high

    def forward(self, x: Tensor) -> Tensor:
        return _ClampInPlace.apply(x, self.high)  # type: ignore[no-any-return]


class _ClampInPlace(torch.autograd.Function):
    """In place in both directions. Only convolutions may read its output: their gradient is nobody else's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float) -> Tensor:
        ctx.mark_dirty(x.clamp_(0, high))
        ctx.save_for_backward(x)
        ctx.high = high
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (out,) = ctx.saved_tensors
        # Its mask of the output is that of the input: both lie strictly between the bounds, or neither does.
        torch.ops.aten.hardtanh_backward.grad_input(gradient, out, 0.0, ctx.high, grad_input=gradient)
        return gradient, None
