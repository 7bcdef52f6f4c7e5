"""A network that was trained here -> ONNX, checked against PyTorch in float32 before anyone uses it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from retrieval.models import backbones
from retrieval.models.engines.exported import DoesNotExport, Exported, ExportedNet
from retrieval.models.engines.number_format import drawn_images
from retrieval.models.engines.runtime import first_line
from retrieval.models.folding import fold
from retrieval.models.network import EmbeddingNet
from retrieval.models.pooling import GridPool, RMACPool, l2n
from retrieval.models.settings import LEAST_SIDE

LEAST_COSINE = 0.99999
"""Of the embeddings of drawn photos in float32 PyTorch and in onnxruntime."""
_OF_THE_MACHINE = (MemoryError, OSError, ImportError)  # they say nothing of the network
_LARGEST = 320  # long side of the drawn photos; the graph is the same for all sizes
_MOST_IMAGES, _MOST_PIXELS = 1 << 16, 1 << 14


def export(net: EmbeddingNet, *, threads: int | None = None) -> Exported:
    """The network outside PyTorch. Any number of images is taken at once; with `keep_aspect`, of any shape.

    Args: threads: of onnxruntime while it is checked.

    Raises: DoesNotExport if PyTorch cannot, or drawn photos get other embeddings than from the network itself.
    """
    net = copy.deepcopy(net).cpu().eval()
    try:
        graph = _export_graph(net)
    except _OF_THE_MACHINE:
        raise
    except Exception as error:  # what the exporter raises for an operation it does not know has no common class
        raise DoesNotExport(f"PyTorch does not export it: {first_line(error)}") from error
    whitening = {}
    if net.spec.whitening != "none":
        whitening = {"projection": net.whitening_projection.numpy(), "mean": net.whitening_mean.numpy()}
    exported = Exported(graph=graph, power=net.power, **whitening)
    try:
        least = least_cosine(net, ExportedNet(exported, net.spec.config, threads=threads))
    except _OF_THE_MACHINE:
        raise
    except Exception as error:  # onnxruntime's errors have no common class either
        raise DoesNotExport(f"onnxruntime does not run it: {first_line(error)}") from error
    if not least >= LEAST_COSINE:
        raise DoesNotExport(
            f"onnxruntime gives other embeddings than PyTorch: cosine {least:.6f}, {LEAST_COSINE} needed."
        )
    return exported


@torch.inference_mode()
def least_cosine(net: EmbeddingNet, other: ExportedNet) -> float:
    """The least cosine between the embeddings of drawn photos by the network in float32 and by the exported one."""
    found = []
    for pixels in _photos(net):
        x = net.normalise(pixels)
        expected = l2n(net(x) + net(x.flip(3))) if net.spec.config.flip else net(x)
        a, b = expected.numpy().astype(np.float64), other.embed(pixels.numpy()).astype(np.float64)
        found.append((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))
    return float(np.concatenate(found).min())  # NaN is the least of all


def _photos(net: EmbeddingNet) -> Iterator[Tensor]:
    """Smooth and coarse ones and plain noise, (B, H, W, 3) uint8, in each shape and number that differs in kind."""
    config = net.spec.config
    side, shapes = config.image_size, [(config.image_size, config.image_size)]
    if config.keep_aspect:
        side = min(config.image_size, _LARGEST)
        shapes = [(side, 3 * side // 4), (9 * side // 16, side), (side // 2 + 1, side // 2), (side // 4, side // 9)]
    noise = torch.Generator().manual_seed(0)
    for number, (height, width) in enumerate(shapes):
        yield drawn_images(2 + number, max(1, height), max(1, width))
        yield torch.randint(0, 256, (1, max(1, height), max(1, width), 3), generator=noise, dtype=torch.uint8)


class _OneScale(nn.Module):
    """Pixels (B, H, W, 3) -> embeddings (B, F) at one scale, before whitening."""

    offset: Tensor
    factor: Tensor

    def __init__(self, net: EmbeddingNet) -> None:
        super().__init__()
        convolutional = backbones.is_convolutional(net.spec.config.backbone)
        self.trunk = fold(net.trunk) if convolutional else net.trunk
        self.pool = _StaticGridPool(net.pool.grid) if isinstance(net.pool, GridPool) else net.pool
        self.head = net.head
        self.register_buffer("offset", 255 * torch.tensor(net.spec.mean))
        self.register_buffer("factor", 1 / (255 * torch.tensor(net.spec.std)))

    def forward(self, pixels: Tensor) -> Tensor:
        x = ((pixels.float() - self.offset) * self.factor).permute(0, 3, 1, 2)
        return l2n(self.head(l2n(self.pool(self.trunk(x)))))


class _StaticGridPool(nn.Module):
    """`GridPool` of maps of one known size as two products: y = R x C^T, R and C the means over rows and columns.

    The exporter makes gathers and masks of the pooling itself where cells overlap.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return (_means(height, self.grid) @ x @ _means(width, self.grid).T).flatten(1)


def _means(side: int, cells: int) -> Tensor:
    """(cells, side): each row the mean over one cell, from floor(i side / cells) to ceil((i + 1) side / cells)."""
    rows = np.zeros((cells, side), dtype=np.float32)
    for cell in range(cells):
        start, end = cell * side // cells, -(-(cell + 1) * side // cells)
        rows[cell, start:end] = 1 / (end - start)
    return torch.from_numpy(rows)


def _export_graph(net: EmbeddingNet) -> bytes:
    config, side = net.spec.config, net.spec.config.image_size
    one = torch.zeros(2, side, side, 3, dtype=torch.uint8 if len(config.scales) == 1 else torch.float32)
    free = {0: Dim("images", min=1, max=_MOST_IMAGES)}
    if config.keep_aspect:
        if isinstance(net.pool, GridPool | RMACPool):
            raise ValueError(f"{config.pooling} pooling of photos in their own shape has other regions for each")
        sides = (Dim(name, min=LEAST_SIDE, max=_MOST_PIXELS) for name in ("height", "width"))
        free |= dict(enumerate(sides, start=1))
        one = one[:, :, : side - side // 4].contiguous()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of PyTorch to itself
        program = torch.onnx.export(
            _OneScale(net).eval(),
            (one,),
            dynamo=True,
            dynamic_shapes={"pixels": free},
            input_names=["pixels"],
            output_names=["embeddings"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose files it was traced
    return model.SerializeToString()
