"""ALIKED-n16: a small network that finds points in a photo and describes them (Zhao et al., IEEE TIM 2023).

Equations are those of arXiv:2304.03608. Four blocks at 1, 1/2, 1/8 and 1/32 of the size, the last two of deformable
convolutions, are brought to the photo's size and lie side by side (sec. III-B): a map of 128 numbers a pixel. A small
head makes of it a score for each pixel. Points are where the score is the largest around, moved to the soft maximum
there (DKD, III-C); each is described by looking at 16 places of the map that the network chooses around it (SDDH,
III-D). Parameters have the names of the published weights, so that those load as they are.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

_CHANNELS = (16, 32, 64, 128)
_DIM = 128
_PLACES = 16  # that a point is described by
_RADIUS = 2  # pixels around a point in which no score is larger
_TEMPERATURE = 0.1
_STEP = 32  # of the coarsest map


class AlikedN16(nn.Module):
    """(3, H, W) float, RGB from 0 to 1 -> points, descriptors and scores, the best first."""

    def __init__(self) -> None:
        super().__init__()
        c1, c2, c3, c4 = _CHANNELS
        self.block1 = _Block(3, c1, _plain, leap=False)
        self.block2 = _Block(c1, c2, _plain)
        self.block3 = _Block(c2, c3, _Deformable)
        self.block4 = _Block(c3, c4, _Deformable)
        for number, channels in enumerate(_CHANNELS, 1):
            self.add_module(f"conv{number}", nn.Conv2d(channels, _DIM // 4, 1, bias=False))
        self.score_head = nn.Sequential(
            *(nn.Conv2d(_DIM, 8, 1, bias=False), nn.SELU()),
            *(nn.Conv2d(8, 4, 3, padding=1, bias=False), nn.SELU()),
            *(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.SELU()),
            nn.Conv2d(4, 1, 3, padding=1, bias=False),
        )
        self.desc_head = _Descriptors()

    def forward(self, image: Tensor, max_points: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns: (N, 2) x, y in pixels; (N, 128) descriptors of norm 1; (N,) scores from 0 to 1, falling.

        N is `max_points` at most, and less where fewer pixels are the largest around.
        """
        found, scores = self.maps(image)
        rows, columns, strength = peaks(scores, max_points)
        points = refined(scores, rows, columns)
        return points, self.desc_head(found, points), strength

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(128, H, W) features of norm 1, and (H, W) scores."""
        height, width = image.shape[1:]
        tall, wide = (-side % _STEP for side in (height, width))
        top, left = tall // 2, wide // 2
        x = F.pad(image[None], (left, wide - left, top, tall - top), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        levels = [self.block1(x)]
        levels.append(self.block2(F.avg_pool2d(levels[-1], 2)))
        levels.append(self.block3(F.avg_pool2d(levels[-1], 4)))
        levels.append(self.block4(F.avg_pool2d(levels[-1], 4)))
        size = x.shape[2:]
        thin = [F.selu(self.get_submodule(f"conv{number}")(level)) for number, level in enumerate(levels, 1)]
        wide_maps = [F.interpolate(one, size, mode="bilinear", align_corners=True) for one in thin[1:]]
        together = torch.cat([thin[0], *wide_maps], dim=1)
        scores = torch.sigmoid(self.score_head(together))[0, 0]
        inside = (slice(top, top + height), slice(left, left + width))
        return F.normalize(together, dim=1)[0][:, *inside], scores[inside]


def peaks(scores: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels whose score is larger than all others within `_RADIUS`, none nearer than that to the edge.

    Args: scores: (H, W).

    Returns: rows, columns and scores of the `most` best, falling, those that are equal in order of rows and columns.
    """
    side = 2 * _RADIUS + 1
    largest = F.max_pool2d(scores[None, None], side, stride=1, padding=_RADIUS)[0, 0]
    kept = scores == largest
    inner = torch.zeros_like(kept)
    inner[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS] = True
    rows, columns = torch.nonzero(kept & inner, as_tuple=True)
    # On an even surface all are as large as the largest around, and none is larger.
    alone = (_around(scores, rows, columns) == scores[rows, columns, None]).sum(dim=1) == 1
    rows, columns = rows[alone], columns[alone]
    order = torch.argsort(scores[rows, columns], descending=True, stable=True)[:most]
    rows, columns = rows[order], columns[order]
    return rows, columns, scores[rows, columns]


def refined(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels moved to the soft maximum of the scores around: (N, 2) float x, y.

    p = p0 + sum_i softmax((s_i - s_0) / t)_i d_i over the places d_i around   (arXiv:2304.03608, as in DKD).
    """
    weights = torch.softmax(_around(scores, rows, columns) / _TEMPERATURE, dim=1)
    down, right = _steps()
    return torch.stack([columns + weights @ right.to(scores), rows + weights @ down.to(scores)], dim=1)


def _around(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, 25) scores of the pixels within `_RADIUS` of each of these, which lie no nearer to the edge."""
    down, right = _steps()
    return scores[rows[:, None] + down, columns[:, None] + right]


def _steps() -> tuple[Tensor, Tensor]:
    steps = torch.arange(-_RADIUS, _RADIUS + 1)
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    return down.flatten(), right.flatten()


class _Conv(Protocol):
    def __call__(self, channels: int, out: int, /) -> nn.Module: ...


def _plain(channels: int, out: int) -> nn.Module:
    return nn.Conv2d(channels, out, 3, padding=1, bias=False)


class _Deformable(nn.Module):
    """A 3 x 3 convolution whose nine places are moved by what another convolution says (Dai et al., ICCV 2017)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(channels, 18, 3, padding=1)
        self.regular_conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        most = max(x.shape[2:]) / 4
        return deform_conv2d(x, self.offset_conv(x).clamp(-most, most), self.regular_conv.weight, padding=(1, 1))


class _Block(nn.Module):
    """Two convolutions, each with BatchNorm; and, but for the first block, a leap over both."""

    def __init__(self, channels: int, out: int, conv: _Conv, leap: bool = True) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, out), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = conv(out, out), nn.BatchNorm2d(out)
        self.downsample = nn.Conv2d(channels, out, 1) if leap else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.selu(self.bn1(self.conv1(x)))))
        return F.selu(y if self.downsample is None else y + self.downsample(x))


class _Descriptors(nn.Module):
    """Each point by a weighted sum of what lies at 16 places that its surroundings choose."""

    def __init__(self) -> None:
        super().__init__()
        twice = 2 * _PLACES
        self.offset_conv = nn.Sequential(nn.Conv2d(_DIM, twice, 3), nn.SELU(), nn.Conv2d(twice, twice, 1))
        self.sf_conv = nn.Conv2d(_DIM, _DIM, 1, bias=False)
        self.agg_weights = nn.Parameter(torch.rand(_PLACES, _DIM, _DIM))

    def forward(self, found: Tensor, points: Tensor) -> Tensor:
        """Args: found: (128, H, W). points: (N, 2) x, y in pixels. Returns: (N, 128) of norm 1."""
        height, width = found.shape[1:]
        corner = points.long() - 1
        x, y = corner[:, 0].clamp(0, width - 4), corner[:, 1].clamp(0, height - 4)
        near = torch.stack([found[:, y + down, x + right] for down in range(3) for right in range(3)], dim=-1)
        moves = self.offset_conv(near.transpose(0, 1).unflatten(2, (3, 3)))[:, :, 0, 0]
        most = max(height, width) / 4
        moves = moves.clamp(-most, most).view(-1, 2, _PLACES).transpose(1, 2)
        places = 2 * (points[:, None] + moves) / torch.tensor([width - 1, height - 1], dtype=points.dtype) - 1
        seen = F.grid_sample(found[None], places[None], mode="bilinear", align_corners=True)[0]  # (128, N, 16)
        seen = F.selu(self.sf_conv(seen[None])[0])
        return F.normalize(torch.einsum("cnp,pcd->nd", seen, self.agg_weights), dim=1)
