"""Speed of AV-HuBERT audio features on a CPU: batched here against the original's one clip at a time.

    python tests/benchmarks/bench_avhubert.py
    python tests/benchmarks/bench_avhubert.py --fairseq .venv-fairseq/bin/python

The network is Base-sized (12 layers of 768) with random weights; clips have the lengths of LRS2 (1 to 6 s).
The original's way is written down again here: one clip a call, the steps of fairseq's TransformerEncoder one
by one. With --fairseq, fairseq's own encoder is timed too, in its own environment, in turn with the others.

Measures take turns, so that a busy machine slows all of them alike; compare the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncdiff.pipeline.avhubert.encoder import (
    AVHubertEncoder,
    EncoderConfig,
    Layer,
    PositionalConv,
    prepare_for_inference,
)
from syncdiff.pipeline.avhubert.inputs import extract

STEPS_PER_SECOND = 25
SIZES = {
    "base": EncoderConfig(12, 768, 3072, 12, layer_norm_first=True),
    "large": EncoderConfig(24, 1024, 4096, 16, layer_norm_first=True),
}
# fairseq's own encoder, run by the other Python: reads lengths as JSON lines, answers with seconds
FAIRSEQ_WORKER = """
import json, sys, time, torch
from fairseq.models.wav2vec.wav2vec2 import TransformerEncoder, Wav2Vec2Config
threads, layers, width, ffn, heads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
encoder = TransformerEncoder(Wav2Vec2Config(
    encoder_layers=layers, encoder_embed_dim=width, encoder_ffn_embed_dim=ffn, encoder_attention_heads=heads,
    layer_norm_first=True)).eval()
print("torch " + torch.__version__, flush=True)
for line in sys.stdin:
    clips = [torch.randn(1, steps, width) for steps in json.loads(line)]
    start = time.perf_counter()
    with torch.no_grad():
        for clip in clips:
            encoder(clip, padding_mask=torch.zeros(clip.shape[:2], dtype=torch.bool))
    print(time.perf_counter() - start, flush=True)
"""


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in np.exp(rng.uniform(np.log(25), np.log(150), options.clips))]
    clips = [rng.standard_normal((n, 104)).astype(np.float32) for n in lengths]
    seconds = sum(lengths) / STEPS_PER_SECOND
    print_machine(options.threads)
    print(f"{options.size}; {len(clips)} clips, {seconds:.0f} s, {min(lengths)} to {max(lengths)} steps")

    exact = random_encoder(SIZES[options.size])
    contenders = {"original's way, clip by clip": lambda: original_way(exact, clips)}
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        encoder = copy.deepcopy(exact)
        prepare_for_inference(encoder, dtype)
        contenders[f"here, batched, {name}"] = lambda encoder=encoder: extract(encoder, clips)
    worker = None
    if options.fairseq:
        worker = FairseqEncoder(options.fairseq, options.threads, SIZES[options.size])
        contenders[f"fairseq itself ({worker.version})"] = lambda: worker.run(lengths)
    report_errors({name: run() for name, run in contenders.items()})
    times = take_turns(contenders, options.rounds)
    report_times(times, seconds)
    if worker is not None:
        worker.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=40, help="number of clips (default 40)")
    parser.add_argument("--rounds", type=int, default=7, help="times each contender runs (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch threads (default 2)")
    parser.add_argument("--size", choices=SIZES, default="base", help="of the encoder (default base)")
    parser.add_argument("--fairseq", type=Path, help="a Python that has fairseq, to time it too")
    return parser.parse_args()


def print_machine(threads: int) -> None:
    names = [line for line in _cpuinfo() if line.startswith("model name")]
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), "").split()
    native = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    print(f"machine: {names[0].split(':')[1].strip() if names else platform.processor()}, {threads} threads")
    print(f"bfloat16 in hardware: {', '.join(native) if native else 'no, so expect no gain from it'}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}")


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def random_encoder(config: EncoderConfig) -> AVHubertEncoder:
    encoder = AVHubertEncoder(config)
    assert isinstance(encoder.pos_conv, PositionalConv)
    nn.init.normal_(
        encoder.pos_conv.weight, std=(4 / (config.conv_pos * config.width)) ** 0.5
    )  # as fairseq does
    nn.init.zeros_(encoder.pos_conv.bias)
    return encoder.eval().requires_grad_(False)


def original_way(encoder: AVHubertEncoder, clips: list[np.ndarray]) -> list[np.ndarray]:
    """One clip a call with every step of the original: no fused attention, no fused projections, weight norm
    computed anew, GELU as a step of its own, [T,B,C] order inside."""
    with torch.no_grad():
        return [_original_clip(encoder, torch.from_numpy(clip)[None])[0].numpy() for clip in clips]


def _original_clip(encoder: AVHubertEncoder, audio: Tensor) -> Tensor:
    config = encoder.config
    sound = encoder.audio_proj(audio).transpose(1, 2)
    video = sound.new_zeros(1, config.width, sound.shape[-1])
    x = encoder.fused_proj(encoder.fused_norm(torch.cat([sound, video], dim=1).transpose(1, 2)))
    conv = encoder.pos_conv
    gain = conv.weight.pow(2).sum((0, 1), keepdim=True).sqrt()
    weight = torch._weight_norm(conv.weight, gain, 2)
    y = F.conv1d(x.transpose(1, 2), weight, conv.bias, padding=weight.shape[2] // 2, groups=conv.groups)
    x = (x + F.gelu(y[:, :, :-1]).transpose(1, 2)).transpose(0, 1)
    for layer in encoder.layers:
        x = x + _original_attention(layer, layer.attention_norm(x))
        x = x + layer.ffn_out(F.gelu(layer.ffn_in(layer.ffn_norm(x)).float()))
    return encoder.final_norm(x.transpose(0, 1))


def _original_attention(layer: Layer, x: Tensor) -> Tensor:
    """As torch.nn.functional.multi_head_attention_forward with separate projections, which fairseq calls."""
    steps, batch, width = x.shape
    joint = layer.query_key_value
    parts = zip(joint.weight.chunk(3), joint.bias.chunk(3), strict=True)
    query, key, value = (
        F.linear(x, weight, bias).contiguous().view(steps, batch * layer.heads, -1).transpose(0, 1)
        for weight, bias in parts
    )
    scores = torch.bmm(query * query.shape[-1] ** -0.5, key.transpose(1, 2)).softmax(dim=-1)
    mixed = torch.bmm(scores, value).transpose(0, 1).contiguous().view(steps, batch, width)
    return layer.attention_out(mixed)


class FairseqEncoder:
    """fairseq's TransformerEncoder in a process of its own."""

    def __init__(self, python: Path, threads: int, config: EncoderConfig) -> None:
        sizes = [threads, config.layers, config.width, config.ffn_width, config.heads]
        command = [str(python), "-c", FAIRSEQ_WORKER, *map(str, sizes)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.version = self._line()

    def run(self, lengths: list[int]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(lengths) + "\n")
        self.process.stdin.flush()
        self._line()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the fairseq process ended; does that Python have fairseq?")
        return line.strip()


def take_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def report_errors(results: dict[str, object]) -> None:
    """How far each is from the first, which is float32."""
    _, *others = results
    reference = np.concatenate(next(iter(results.values())))  # type: ignore[arg-type]
    for name in others:
        if isinstance(results[name], list):
            off = np.concatenate(results[name]) - reference  # type: ignore[arg-type]
            relative = np.linalg.norm(off) / np.linalg.norm(reference)
            print(f"{name}: largest difference {np.abs(off).max():.2g}, relative (L2) {relative:.2g}")


def report_times(times: dict[str, list[float]], seconds: float) -> None:
    first = next(iter(times.values()))
    print(f"{'':42}{'median s':>9}{'min':>8}{'max':>8}{'x real time':>13}{'ratio':>8}{'of minima':>11}")
    for name, values in times.items():
        median = statistics.median(values)
        ratios = f"{statistics.median(first) / median:8.2f}{min(first) / min(values):11.2f}"
        print(f"{name:42}{median:9.2f}{min(values):8.2f}{max(values):8.2f}{seconds / median:13.0f}{ratios}")


if __name__ == "__main__":
    main()
