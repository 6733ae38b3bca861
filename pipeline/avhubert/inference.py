"""The encoder prepared for inference: number type and device, and on CPUs faster forms of the same layers."""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncdiff.pipeline.avhubert.encoder import AVHubertEncoder, Linear, Packing, PositionalConv
from syncdiff.pipeline.avhubert.resnet import LipFrontend


def prepare_for_inference(
    encoder: AVHubertEncoder, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> None:
    """Moves the encoder and, on a CPU, replaces layers by faster ones; for good, and not to be trained after.

    In `dtype` are the products and the video front end. Layer norms and the residual stream stay in float32,
    and on a CPU so does the positional convolution.
    """
    encoder.to(device)
    on_cpu = torch.device(device).type == "cpu"
    for module in list(encoder.modules()):
        if isinstance(module, Linear | LipFrontend) or (isinstance(module, PositionalConv) and not on_cpu):
            module.to(dtype)
    if not on_cpu:
        return
    for module in list(encoder.modules()) if can_pack() else []:
        for name, child in list(module.named_children()):
            if isinstance(child, Linear):
                setattr(module, name, PackedLinear(child))
    if isinstance(encoder.pos_conv, PositionalConv):
        encoder.pos_conv = SpectralPositionalConv(encoder.pos_conv)


def can_pack() -> bool:
    """Whether oneDNN's packed products are there: in PyTorch's builds for x86 processors."""
    return platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()


class PackedLinear(nn.Module):
    """`Linear` for inference on x86 processors: the weight in oneDNN's own layout, the activation in the
    product.

    In float32 twice as fast as MKL's product on AMD processors (tests/benchmarks/bench_avhubert.py). The
    operators are those that `torch.compile` emits for the same layers.
    """

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.dtype = linear.weight.dtype
        self.bias = linear.bias
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        gelu_kind = "none" if activation == "gelu" else ""  # by the error function, not by tanh
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self.dtype), self.packed, self.bias, activation, [], gelu_kind
        )
        return y


class SpectralPositionalConv(nn.Module):
    """`PositionalConv` for inference on a CPU: by Fourier transforms of overlapping blocks (overlap-save), in
    float32. A twenty-fifth of the arithmetic for a kernel of 128, and five times faster."""

    def __init__(self, conv: PositionalConv) -> None:
        super().__init__()
        _, per_group, kernel = conv.weight.shape
        self.kernel = kernel
        self.block = 2 << (kernel - 1).bit_length()  # of which block - kernel + 1 steps come out
        self.bias = conv.bias
        # a convolution layer correlates, so the spectrum is conjugated; [frequencies*groups, inputs, outputs]
        spectrum = torch.fft.rfft(conv.weight.detach().float(), n=self.block).conj()
        grouped = spectrum.view(conv.groups, per_group, per_group, -1).permute(3, 0, 2, 1)
        self.spectrum: Tensor = grouped.resolve_conj().contiguous().flatten(0, 1)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Shape: [N, width], same result."""
        padded = packing.pad(x.float())
        batch, steps, channels = padded.shape
        step = self.block - self.kernel + 1
        blocks = -(-steps // step)
        before = self.kernel // 2
        after = blocks * step + self.kernel - 1 - before - steps
        windows = F.pad(padded, (0, 0, before, after)).unfold(1, self.block, step).transpose(2, 3)
        spectrum = torch.fft.rfft(windows, dim=2)
        columns = spectrum.reshape(batch * blocks, len(self.spectrum), -1).transpose(0, 1)
        product = torch.bmm(columns, self.spectrum).transpose(0, 1).reshape(batch, blocks, -1, channels)
        y = torch.fft.irfft(product, n=self.block, dim=2)[:, :, :step].reshape(batch, -1, channels)[:, :steps]
        return packing.unpad(F.gelu(y + self.bias))
