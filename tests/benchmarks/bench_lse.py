"""Frames per second of LSE scoring, beside syncnet-python's own `SyncNetInstance` in the same run.

    python tests/benchmarks/bench_lse.py ../shared/realdata/videos/vox2_00104.mp4 …

Both start from the video file and end with LSE-D, LSE-C and offset. The original gets what its own pipeline
gives it: JPEGs and a wave file that ffmpeg writes, batches of 20. Runs alternate; the ratio is the median of
the ratios of neighbouring runs. Clips must be 224x224, because `SyncNetInstance` does not resize. Weights are
stand-ins, which do not change the speed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from stand_in_weights import syncnet
from syncnet_python.SyncNetInstance import SyncNetInstance

from syncdiff.evaluate.metrics.sync.lse import sync_distances
from syncdiff.evaluate.metrics.sync.syncnet import SyncNet
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary


def original(instance: SyncNetInstance, clip: Path, *, grad: bool) -> tuple[int, float, float]:
    """Offset, confidence and minimum distance, as syncnet-python's pipeline computes them for a crop.

    grad: whether autograd records, as it does in that pipeline, which never turns it off.
    """
    sound = ["-ac", "1", "-vn", "-acodec", "pcm_s16le", "-ar", "16000", "-af", "aresample=async=1"]
    with tempfile.TemporaryDirectory() as folder:
        for output in (
            ["-threads", "1", "-f", "image2", f"{folder}/%06d.jpg"],
            [*sound, f"{folder}/audio.wav"],
        ):
            command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-i", str(clip), *output]
            subprocess.run(command, check=True)
        options = SimpleNamespace(tmp_dir=folder, batch_size=20, vshift=15)
        with contextlib.redirect_stdout(io.StringIO()), torch.set_grad_enabled(grad):
            return instance.evaluate(options)


@dataclass(frozen=True)
class Cost:
    """Seconds of one scoring: by the clock, and of processor time with that of ffmpeg."""

    wall_s: float
    cpu_s: float


@contextlib.contextmanager
def cost_of(costs: list[Cost]) -> Iterator[None]:
    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in both)

    wall, cpu = time.perf_counter(), used()
    yield
    costs.append(Cost(time.perf_counter() - wall, used() - cpu))


def summary(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--grad", action="store_true", help="let the original record for autograd")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = syncnet()
    instance, ours = SyncNetInstance(network, device="cpu"), SyncNet(network)
    theirs_s: list[Cost] = []
    ours_s: list[Cost] = []
    frames: list[int] = []
    for clip in options.clips:
        for _ in range(options.repeats):
            with cost_of(theirs_s):
                offset, confidence, distance = original(instance, clip, grad=options.grad)
            with cost_of(ours_s):
                found = sync_distances(ours, clip)
            frames.append(found.frames)
        print(f"{clip.name}: {found.frames} frames, original and ours:")
        print(f"  LSE-D {distance:.4f} {found.lse_d:.4f}, LSE-C {confidence:.4f} {found.lse_c:.4f}", end=", ")
        print(f"offset {offset} {found.offset_frames}", flush=True)
    print(f"{options.threads} threads, load of the machine {os.getloadavg()[0]:.1f}")
    for kind in ("wall_s", "cpu_s"):
        for name, costs in (("original", theirs_s), ("syncdiff", ours_s)):
            rates = [count / getattr(cost, kind) for count, cost in zip(frames, costs, strict=True)]
            print(f"{kind}: {name} frames/s {summary(rates)}")
        pairs = zip(theirs_s, ours_s, strict=True)
        print(f"{kind}: ratio {summary([getattr(a, kind) / getattr(b, kind) for a, b in pairs])}")


if __name__ == "__main__":
    main()
