"""SyncNet v2 rewritten as plain 2-D convolutions: the same numbers, in less than half the time on a CPU.

Source: Chung and Zisserman, "Out of time: automated lip sync in the wild" (2016), as implemented by
joonson/syncnet_python and packaged as `syncnet_python.SyncNetModel.S`, whose weights are taken over.

- The lip stream's Conv3d layers have temporal extent 5 once and 1 after it. On windows of exactly 5 frames
  the first is a 2-D convolution over 15 channels, and the others are 2-D as they stand.
- Consecutive windows share 4 of their 5 frames: the 15 channels are a strided view of the frames.
- Batch normalisation in evaluation is affine and goes into the convolution before it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from syncnet_python.SyncNetModel import S as OriginalSyncNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

WINDOW_FRAMES = 5
WINDOW_MFCC_STEPS = 20
MFCC_STEPS_PER_FRAME = 4
IMAGE_SIZE_PX = 224
EMBEDDING_SIZE = 1024
CPU_BATCH = 4  # windows of frames at once; more spill out of a core's cache and run slower (measured)
GPU_BATCH = 64
SOUND_BATCH = 64


def build_original(weights: Mapping[str, Tensor]) -> OriginalSyncNet:
    """SyncNet with the weights of `syncnet_v2.model`. Raises RuntimeError when names or shapes do not fit."""
    network = OriginalSyncNet(EMBEDDING_SIZE)
    network.load_state_dict(weights)
    return network.eval()


class SyncNet(nn.Module):
    """The two embedding networks, made from the original's modules, in evaluation mode."""

    def __init__(self, original: OriginalSyncNet) -> None:
        super().__init__()
        lips = _flatten_3d(_fold(original.netcnnlip))
        self.lips = nn.Sequential(*lips, nn.Flatten(), *_fold(original.netfclip))
        self.sound = nn.Sequential(*_fold(original.netcnnaud), nn.Flatten(), *_fold(original.netfcaud))
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def batch_size(self) -> int:
        return CPU_BATCH if self.device.type == "cpu" else GPU_BATCH

    @torch.inference_mode()
    def embed_lips(self, frames: Tensor) -> Tensor:
        """Embeddings of all windows of consecutive frames.

        Shape: frames [t+4,224,224,3] BGR, uint8 or float in 0..255, to [t,1024] float32 on the CPU.
        """
        planes = frames.to(self.device).permute(0, 3, 1, 2).float().contiguous()
        windows = planes.unfold(0, WINDOW_FRAMES, 1)  # [t,3,H,W,5], no copy
        windows = windows.permute(0, 4, 1, 2, 3).flatten(1, 2)  # [t,15,H,W]
        return self._run(self.lips, windows, self.batch_size)

    @torch.inference_mode()
    def embed_sound(self, mfcc: Tensor, windows: int) -> Tensor:
        """Embeddings of the sound of the first `windows` windows.

        Shape: mfcc [13,M] with M >= 4 * windows + 16, to [windows,1024] float32 on the CPU.
        """
        steps = mfcc.to(self.device).float().unfold(1, WINDOW_MFCC_STEPS, MFCC_STEPS_PER_FRAME)[:, :windows]
        return self._run(self.sound, steps.permute(1, 0, 2).unsqueeze(1), SOUND_BATCH)  # [windows,1,13,20]

    def _run(self, network: nn.Module, inputs: Tensor, batch_size: int) -> Tensor:
        # TensorFloat-32 keeps 10 bits of mantissa: too coarse for figures that are to agree to 1e-3.
        with torch.backends.cudnn.flags(allow_tf32=False):
            outputs = [
                network(part.contiguous(memory_format=torch.channels_last)).cpu()
                for part in inputs.split(batch_size)
            ]
        return torch.cat(outputs)


def _fold(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Copies of the layers, each batch normalisation folded into the layer before it, identities left out."""
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            _fold_into(folded[-1], layer)
        elif isinstance(layer, nn.MaxPool2d) and layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            continue
        else:
            folded.append(copy.deepcopy(layer))
    return folded


def _fold_into(layer: nn.Module, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
    assert isinstance(layer, (nn.Linear, nn.Conv2d, nn.Conv3d)) and layer.bias is not None
    assert norm.running_mean is not None and norm.running_var is not None
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    layer.weight, bias = fuse(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    layer.bias = bias


def _flatten_3d(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """The 3-D layers as 2-D ones: time becomes channels in the first convolution and is 1 in all others."""
    return [
        _flatten_convolution(layer)
        if isinstance(layer, nn.Conv3d)
        else _flatten_pool(layer)
        if isinstance(layer, nn.MaxPool3d)
        else layer
        for layer in layers
    ]


def _flatten_convolution(layer: nn.Conv3d) -> nn.Conv2d:
    out_channels, in_channels, depth, height, width = layer.weight.shape
    padding = layer.padding if isinstance(layer.padding, tuple) else (0, 0, 0)
    flat = nn.Conv2d(in_channels * depth, out_channels, (height, width), layer.stride[1:], padding[1:])  # type: ignore[arg-type]
    flat.weight = nn.Parameter(layer.weight.transpose(1, 2).flatten(1, 2))  # channels in order (time, colour)
    flat.bias = layer.bias
    return flat


def _flatten_pool(layer: nn.MaxPool3d) -> nn.MaxPool2d:
    kernel, stride, padding = (
        value[1:] if isinstance(value, tuple) else value
        for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    return nn.MaxPool2d(kernel, stride, padding)
