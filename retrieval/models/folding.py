"""BatchNorm inside the convolution before it: once and for all for inference, at each step for training.

On a CPU most of a training step is not arithmetic but maps that are written, kept for the gradient and read again.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.fx import GraphModule, Node
from torch.nn.utils import fuse_conv_bn_eval


def fold(module: nn.Module) -> nn.Module:
    """The same function for inference: each BatchNorm is part of the convolution before it. `module` stays as it is.

    One that follows no convolution, or a convolution whose output is used elsewhere too, stays.
    """
    traced = _trace(copy.deepcopy(module))
    _fold_norms(traced, fuse_conv_bn_eval)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def rewrite(module: nn.Sequential) -> nn.Module:
    """The same function of the same parameters, with frozen BatchNorm statistics; `module` stays as it is.

    - A BatchNorm runs as part of the convolution before it: BN(w * x) = (w s) * x + (b - m s), s = g / sqrt(v + eps).
      The product is taken anew at each call (or see `products_held`), so gradients reach w, g and b as they would.
      One that follows no convolution, or a convolution whose output is used elsewhere too, stays.
    - A ReLU or ReLU6 between convolutions keeps its output alone, which the next convolution keeps anyway. PyTorch's
      ReLU6 in place keeps a copy of its input.
    - A SiLU is not in place, for the same reason.
    """
    traced = _trace(module)
    _fold_norms(traced, _Folded)
    convolutions = (nn.Conv2d, _Folded)
    for at, node in enumerate(list(traced.graph.nodes)):
        own, before = _layer(traced, node), _input(node)
        if isinstance(own, nn.ReLU | nn.ReLU6) and isinstance(_layer(traced, before), convolutions):
            users = [_layer(traced, user) for user in node.users]
            if len(before.users) == 1 and all(isinstance(user, convolutions) for user in users):
                _put(traced, node, _Clamp(6.0 if isinstance(own, nn.ReLU6) else float("inf")), f"clamp_{at}")
        elif isinstance(own, nn.SiLU):
            _put(traced, node, nn.SiLU(), f"silu_{at}")
    traced.recompile()
    return traced


_TRACING = threading.Lock()


class _Tracer(torch.fx.Tracer):
    """While it traces, it stands in the place of every module's call, in all threads. Calls of the others, which embed
    meanwhile, are let through."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _trace(module: nn.Module) -> GraphModule:
    """As `torch.fx.symbolic_trace`, which leaves a wrong stand-in behind where two threads trace at once."""
    with _TRACING:
        tracer = _Tracer()
        graph = tracer.trace(module)
        return GraphModule(tracer.root, graph, type(module).__name__)


def _fold_norms(traced: GraphModule, make: Callable[[nn.Conv2d, nn.BatchNorm2d], nn.Module]) -> None:
    """Wherever a BatchNorm is all that reads a convolution's output, `make` gives the one layer that does both."""
    for node in list(traced.graph.nodes):
        before = _input(node)
        conv, norm = _layer(traced, before), _layer(traced, node)
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and len(before.users) == 1):
            continue
        if conv.padding_mode == "zeros":  # others pad by PyTorch's own hand, see `_Folded.forward`
            _put(traced, before, make(conv, norm), str(before.target))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)


def _input(node: Node) -> Node:
    """The call whose output this one reads first; itself if it reads none."""
    return node.args[0] if node.args and isinstance(node.args[0], Node) else node


def _layer(traced: GraphModule, node: Node) -> nn.Module | None:
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _put(traced: GraphModule, node: Node, new: nn.Module, name: str) -> None:
    traced.add_submodule(name, new)
    node.target = name


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
        conv, (weight, bias) = self.conv, self.held or self.product()
        return nn.functional.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


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
