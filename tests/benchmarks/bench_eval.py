"""Time and memory of scoring a folder by all metrics: `syncdiff-eval` as users run it.

    python tests/benchmarks/bench_eval.py CLIPS_DIR [--metrics lse,psnr] [--workers 2]

The clips are the references; the results are the clips encoded again, smaller. Networks are stand-ins of the
right size (AV-HuBERT's is tiny), so the figures mean nothing and every table says so; time and memory do not
depend on that. Prints seconds, frames a second, and the largest memory of all processes together.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from stand_in_weights import NETWORKS, write_weights

from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.records import ClipError

SUFFIXES = (".mp4", ".avi", ".mpg", ".mkv", ".mov")


def encode_again(clips: Path, folder: Path) -> int:
    """Write each clip as a worse copy; how many frames at 25 a second they have."""
    folder.mkdir(parents=True)
    frames = 0
    for path in sorted(p for p in clips.iterdir() if p.suffix in SUFFIXES):
        command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-i", str(path), "-c:v", "libx264",
                   "-crf", "32", "-preset", "veryfast", "-vf", "scale=trunc(iw/2)*2:trunc(ih/2)*2",
                   "-pix_fmt", "yuv420p", "-c:a", "aac", str(folder / f"{path.stem}.mp4")]  # fmt: skip
        subprocess.run(command, check=True)
        try:
            frames += sum(len(chunk) for chunk in open_video(folder / f"{path.stem}.mp4").chunks())
        except ClipError as error:
            print(f"{path.name}: {error}")
    return frames


def run(command: list[str], weights: Path) -> tuple[float, int, int]:
    """Seconds, largest resident bytes of all processes together, and of the largest one.

    Shared pages count in each process that maps them, so the first is an upper bound.
    """
    together, largest, done = 0, 0, threading.Event()
    process = psutil.Popen(command, env={**os.environ, "SYNCDIFF_WEIGHTS": str(weights)})

    def watch() -> None:
        nonlocal together, largest
        while not done.wait(0.5):
            sizes = []
            for one in [process, *process.children(recursive=True)]:
                try:
                    sizes.append(one.memory_info().rss)
                except psutil.Error:
                    continue
            together, largest = max(together, sum(sizes)), max(largest, *sizes, 0)

    thread = threading.Thread(target=watch)
    started = time.perf_counter()
    thread.start()
    code = process.wait()
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    if code:
        sys.exit(f"syncdiff-eval ended with exit code {code}")
    return seconds, together, largest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--metrics")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = encode_again(options.clips, folder / "results" / "crf32")
        write_weights(folder / "weights", [*NETWORKS, "avhubert-base"])
        evaluator = Path(sys.executable).with_name("syncdiff-eval")
        command = [evaluator, folder / "results" / "crf32", "--reference", options.clips, "--one-method",
                   "--unverified-weights", "--workers", options.workers,
                   "--out", folder / "eval"]  # fmt: skip
        command += ["--metrics", options.metrics] if options.metrics else []
        for kind in ("everything computed", "the same again, all from the cache"):
            seconds, together, largest = run([str(part) for part in command], folder / "weights")
            print(f"{kind}: {frames} frames in {seconds:.1f} s: {frames / seconds:.1f} frames/s on "
                  f"{options.workers} workers; memory {together / 2**30:.1f} GiB in all, largest process "
                  f"{largest / 2**30:.1f} GiB", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
