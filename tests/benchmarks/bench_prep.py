"""Speed and memory of preparation, decode to shard with logfbank and mel: `make bench` runs it.

    python tests/benchmarks/bench_prep.py CLIPS_DIR [--copies 8] [--repeats 3] [--workers 2] [--config FILE]
    python tests/benchmarks/bench_prep.py CLIPS_DIR --long-video kim_7s_1080p30.mp4 --minutes 30

The first form links each clip several times under other names, prepares them all on warm workers, and prints
frames a second of wall time and of processor time. The second repeats one video without encoding it again and
prints the largest resident memory of a worker.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray

from syncdiff.pipeline.datasets.listing import Listing, read_layout
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.plan import RunIdentity, plan_shards
from syncdiff.pipeline.prep_config import load_config
from syncdiff.pipeline.ray_start import connect
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.run_ray import prepare_shards
from syncdiff.pipeline.store.manifest import versions
from syncdiff.pipeline.store.prep_run import PrepRun


def link_clips(clips: Path, folder: Path, size_px: tuple[int, int], copies: int) -> int:
    """Link every clip of this size `copies` times; how many different ones there were."""
    chosen = [p for p in sorted(clips.rglob("*")) if p.suffix in (".mp4", ".avi", ".mpg")]
    chosen = [p for p in chosen if _size(p) == size_px]
    for copy in range(copies):
        (folder / str(copy)).mkdir(parents=True)
        for number, path in enumerate(chosen):
            (folder / str(copy) / f"{number}{path.suffix}").symlink_to(path.resolve())
    return len(chosen)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        info = probe(path)
    except ClipError:
        return None
    return info.width_px, info.height_px


@contextmanager
def memory_watch() -> Iterator[list[int]]:
    """The largest resident memory of each Ray worker seen while the block runs (one entry, in bytes)."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::Worker"):
                        peak[0] = max(peak[0], process.memory_info().rss)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def processor_s() -> float:
    """Processor time of this process's descendants that are alive (Ray's workers and their ffmpeg)."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if process.name().startswith(("ray::", "ray_")):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        except psutil.Error:
            continue
    return total


def prepare(listing: Listing, out: Path, config_file: Path | None) -> tuple[int, float, float]:
    """Frames prepared, wall seconds, processor seconds; the start of the workers included."""
    config = load_config("folder", config_file)
    plans = plan_shards(listing.clips)
    run = PrepRun(out, RunIdentity.of("folder", config.to_dict(), versions(), listing.clips, 0), plans)
    with run.started():
        wall, spent = time.perf_counter(), processor_s()
        clock = [(wall, spent)]  # the last is taken at the last sign of progress, while the workers are alive
        prepare_shards(
            run,
            plans,
            "folder",
            listing.root,
            config,
            lambda _: clock.append((time.perf_counter(), processor_s())),
        )
        wall, spent = clock[-1][0] - wall, clock[-1][1] - spent
        manifest = run.finish(listing.rejects)
    return sum(c["frames"] for c in manifest["counts"]["splits"].values()), wall, spent


def repeat_video(source: Path, target: Path, minutes: float) -> None:
    subprocess.run(
        [ffmpeg_binary(), "-loglevel", "error", "-stream_loop", "-1", "-i", source, "-t", str(60 * minutes),
         "-c", "copy", target], check=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", default="224x224")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--long-video")
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = folder / "raw"
        if options.long_video:
            raw.mkdir()
            repeat_video(options.clips / options.long_video, raw / "long.mp4", options.minutes)
        else:
            number = link_clips(options.clips, raw, (width, height), options.copies)
            print(f"{number} clips of {options.size}, {options.copies} times")
        listing = read_layout("folder", raw)
        connect(options.workers, None)
        rates, efficiencies = [], []
        with memory_watch() as peak:
            if not options.long_video:
                prepare(listing, folder / "warm", options.config)
            for repeat in range(1 if options.long_video else options.repeats):
                frames, wall, spent = prepare(listing, folder / str(repeat), options.config)
                rates.append(frames / wall)
                efficiencies.append(frames / spent)
                print(f"{frames} frames in {wall:.1f} s: {rates[-1]:.0f} frames/s on {options.workers} "
                      f"workers, {efficiencies[-1]:.0f} frames per processor second")  # fmt: skip
        ray.shutdown()
    print(f"frames/s median {statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f}); "
          f"per processor second {statistics.median(efficiencies):.0f}")  # fmt: skip
    print(f"largest worker {peak[0] / 2**20:.0f} MiB resident; this process "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
