"""Does it learn? The tiny model on the sample data set, whose true audio-visual lag is 0.

    python tests/benchmarks/learn.py                    (make learn)
    python tests/benchmarks/learn.py --no-ablations     (a third of the time)

Trains configs/train-tiny.yaml, then redraws the held-out clips and measures the result as anyone would: from
the written video, mouth opening by dlib's landmarks against loudness of the sound.

    own        each clip with its own sound            opening and sound should agree, at lag 0
    cross      the picture of one clip, the sound of another; against the sound that drove it
    picture    the same videos against the sound that belongs to the picture: what the picture alone betrays
    shuffled   sound windows in random order, against the true sound
    deaf       no sound at all, against the true sound

Writes learn.json, loss.svg and opening.svg to --out. Exit code 1 where a criterion is not met.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sample_store import prepared_sample
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from syncdiff.model.data import resize_faces, resize_masks
from syncdiff.model.generate import GenerationJob, Model, generate, load_model
from syncdiff.model.generate_split import Pair, make_pairs, row_job, write_result
from syncdiff.model.network import Conditions
from syncdiff.pipeline.faces.backend import FaceBackend
from syncdiff.pipeline.faces.head_pose import mouth_opening
from syncdiff.pipeline.faces.track import make_backend, track_faces
from syncdiff.pipeline.features.av_sync import av_correlation, loudness
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.store.read import Dataset, open_dataset

ABLATIONS = {
    "bottleneck": [],
    "no bottleneck": ["model.pose.bottleneck=none"],
    "no pose frame": ["model.pose.bottleneck=off"],
}
LEAST_R, MOST_LAG, MARGIN_R = 0.6, 1, 0.3


@dataclass(frozen=True)
class Sync:
    """Agreement of a video with a sound: r at lag 0, the best lag in frames, r there; NaN without a face."""

    clip: str
    r: float
    lag: float
    best_r: float


def train(config: str, store: Path, out: Path, settings: Sequence[str]) -> float:
    """Train as a user does; returns the seconds it took."""
    command = [
        str(Path(sys.executable).with_name("syncdiff-train")),
        config,
        "--data",
        str(store),
        "--out",
        str(out),
    ]
    for setting in settings:
        command += ["--set", setting]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


class Deaf(torch.nn.Module):
    """A network that never hears the sound."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, noisy: torch.Tensor, steps: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        return self.net(noisy, steps, conditions.without_audio())


def shuffled(job: GenerationJob) -> GenerationJob:
    """The job with its sound windows in random order."""
    job.audio = job.audio[np.random.default_rng(0).permutation(len(job.audio))]
    return job


def make_videos(
    model: Model,
    dataset: Dataset,
    raw: Path,
    pairs: list[Pair],
    out: Path,
    change: Callable[[GenerationJob], GenerationJob] = lambda job: job,
) -> dict[str, GenerationJob]:
    """Generate, write and return the jobs by name."""
    by_name = {pair.name: pair for pair in pairs}
    jobs = (change(row_job(model, p.name, dataset[p.video], dataset[p.sound])) for p in pairs)
    done = {}
    for job in generate(model, jobs, 8):
        write_result(dataset, by_name[job.name], job, out / f"{job.name}.mp4", raw)
        done[job.name] = job
    return done


def opening_of(path: Path, backend: FaceBackend) -> np.ndarray:
    """Mouth opening [T] of the face in a video, NaN where there is none."""
    try:
        tracking = track_faces(open_video(path).chunks(), backend)
    except ClipError:
        return np.full(sum(len(c) for c in open_video(path).chunks()), np.nan, np.float32)
    track = max(tracking.tracks, key=len)
    opening = np.full(tracking.num_frames, np.nan, np.float32)
    opening[track.start_frame : track.start_frame + len(track)] = mouth_opening(track.landmarks_px)
    return opening


def sync(clip: str, opening: np.ndarray, level: np.ndarray) -> Sync:
    """Opening against loudness, over the frames that both have."""
    frames = min(len(opening), len(level))
    seen = np.isfinite(opening[:frames])
    if seen.sum() < 45:
        return Sync(clip, float("nan"), float("nan"), float("nan"))
    mouth, heard = opening[:frames][seen], level[:frames][seen]
    lag, best = av_correlation(mouth.astype(np.float32), heard)
    r = float(np.corrcoef(mouth, np.maximum(heard, heard.max() - 50))[0, 1])
    return Sync(clip, r, float("nan") if lag is None else lag, float("nan") if best is None else best)


def level_of(dataset: Dataset, row: int) -> np.ndarray:
    clip = dataset[row]
    pcm = clip.audio()
    assert pcm is not None
    return loudness(pcm, clip.num_frames)


def fidelity(
    model: Model, dataset: Dataset, pairs: list[Pair], jobs: dict[str, GenerationJob]
) -> dict[str, float]:
    """PSNR inside the mask against the truth, of the result and of the identity frame copied; and flicker.

    Flicker: mean absolute difference of the frame-to-frame changes of result and truth inside the mask, in
    grey levels; 0 for the truth itself.
    """
    size = model.config.model.resolution
    generated_psnr, copied_psnr, flicker = [], [], []
    for pair in pairs:
        clip, job = dataset[pair.video], jobs[pair.name]
        reference = resize_faces(clip.frames(), size).astype(np.float32)
        mask = resize_masks(clip.masks(), size)
        generated = job.generated.astype(np.float32)
        for pictures, into in ((generated, generated_psnr), (reference[job.identity], copied_psnr)):
            error = [np.square(p[m] - t[m]).mean() for p, t, m in zip(pictures, reference, mask, strict=True)]
            into.append(10 * np.log10(255**2 / np.mean(error)))
        change = np.abs(np.diff(generated, axis=0) - np.diff(reference, axis=0))
        flicker.append(np.mean([c[m].mean() for c, m in zip(change, mask[1:], strict=True)]))
    return {
        "psnr_in_mask_db": float(np.mean(generated_psnr)),
        "psnr_of_identity_frame_db": float(np.mean(copied_psnr)),
        "flicker_grey_levels": float(np.mean(flicker)),
    }


def summary(clips: list[Sync]) -> dict[str, Any]:
    return {
        "r": float(np.nanmean([s.r for s in clips])),
        "worst_r": float(np.nanmin([s.r for s in clips])),
        "lags": [s.lag for s in clips],
        "clips": [vars(s) for s in clips],
    }


def evaluate(
    checkpoint: Path, store: Path, raw: Path, out: Path, device: str, everything: bool
) -> dict[str, Any]:
    """All figures of one trained model."""
    model, dataset, backend = (
        load_model(checkpoint, device),
        open_dataset(store, "test"),
        make_backend("dlib"),
    )
    own, _ = make_pairs(dataset, "reconstruction", None)
    cross, _ = make_pairs(dataset, "cross", None)
    started = time.perf_counter()
    jobs = make_videos(model, dataset, raw, own, out / "own")
    seconds = time.perf_counter() - started
    frames = sum(len(job.order) for job in jobs.values())

    def measured(pairs: list[Pair], folder: str, sound: Callable[[Pair], int]) -> Iterator[Sync]:
        for pair in pairs:
            opening = opening_of(out / folder / f"{pair.name}.mp4", backend)
            yield sync(pair.name, opening, level_of(dataset, sound(pair)))

    figures: dict[str, Any] = {
        "frames_per_s": frames / seconds,
        **fidelity(model, dataset, own, jobs),
        "own": summary(list(measured(own, "own", lambda pair: pair.sound))),
    }
    make_videos(model, dataset, raw, cross, out / "cross")
    figures["cross"] = summary(list(measured(cross, "cross", lambda pair: pair.sound)))
    figures["picture"] = summary(list(measured(cross, "cross", lambda pair: pair.video)))
    if everything:
        make_videos(model, dataset, raw, own, out / "shuffled", shuffled)
        figures["shuffled"] = summary(list(measured(own, "shuffled", lambda pair: pair.sound)))
        make_videos(replace(model, net=Deaf(model.net)), dataset, raw, own, out / "deaf")
        figures["deaf"] = summary(list(measured(own, "deaf", lambda pair: pair.sound)))
        first = own[0]
        generated, reference = (
            opening_of(path, backend)
            for path in (out / "own" / f"{first.name}.mp4", raw / dataset[first.video].value("source"))
        )
        level = level_of(dataset, first.sound)
        series = {
            "true mouth": reference,
            "generated mouth": generated,
            "loudness": np.maximum(level, level.max() - 50),
        }
        chart(out / "opening.svg", {k: standard(v) for k, v in series.items()}, f"{first.name}: frames")
    return figures


def standard(values: np.ndarray) -> np.ndarray:
    return (values - np.nanmean(values)) / (np.nanstd(values) + 1e-9)


def losses(run: Path) -> np.ndarray:
    """(step, loss) [n,2] from TensorBoard's log."""
    events = EventAccumulator(str(run / "logs"))
    events.Reload()
    return np.array([(e.step, e.value) for e in events.Scalars("loss")])


def chart(path: Path, series: dict[str, np.ndarray], label: str) -> None:
    """Lines over their index, as SVG."""
    width, height, colours = 760, 240, ("#444444", "#d62728", "#1f77b4", "#2ca02c")
    low = min(float(np.nanmin(s)) for s in series.values())
    high = max(float(np.nanmax(s)) for s in series.values())
    box = f'viewBox="0 0 {width} {height + 30}" font-family="sans-serif" font-size="12"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {box}>']
    for k, (name, values) in enumerate(series.items()):
        x = np.linspace(10, width - 10, len(values))
        y = height - 10 - (height - 20) * (values - low) / max(high - low, 1e-9)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b))
        parts.append(f'<polyline fill="none" stroke="{colours[k]}" stroke-width="1.5" points="{points}"/>')
        parts.append(f'<text x="{10 + 150 * k}" y="{height + 20}" fill="{colours[k]}">{name}</text>')
    parts.append(f'<text x="{width - 10}" y="{height + 20}" text-anchor="end">{label}</text></svg>')
    path.write_text("\n".join(parts), encoding="utf-8")


def verdicts(figures: dict[str, Any]) -> dict[str, bool]:
    """The criteria, each met or not."""
    own, cross = figures["own"], figures["cross"]
    lags = own["lags"] + cross["lags"]
    return {
        f"own sound: r >= {LEAST_R}": own["r"] >= LEAST_R,
        f"another clip's sound: r >= {LEAST_R}": cross["r"] >= LEAST_R,
        f"lag within {MOST_LAG} frame in every clip": all(abs(lag) <= MOST_LAG for lag in lags),
        f"shuffled sound: r lower by {MARGIN_R}": figures["shuffled"]["r"] <= own["r"] - MARGIN_R,
        f"no sound: r lower by {MARGIN_R}": not figures["deaf"]["r"] > own["r"] - MARGIN_R,
        "PSNR in the mask above that of the identity frame": figures["psnr_in_mask_db"]
        > figures["psnr_of_identity_frame_db"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/learn"))
    parser.add_argument("--config", default="train-tiny.yaml")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--train-clips", type=int, default=10)
    parser.add_argument("--ablations", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    raw, store = prepared_sample(out / "data", arguments.train_clips)
    report: dict[str, Any] = {"threads": torch.get_num_threads(), "models": {}}
    for name, settings in ABLATIONS.items() if arguments.ablations else [("bottleneck", [])]:
        run = out / name.replace(" ", "-")
        settings = [*settings, f"optim.device={arguments.device}"]
        seconds = train(arguments.config, store, run, settings)
        curve = losses(run)
        chart(run / "loss.svg", {"loss": np.log(curve[:, 1])}, f"log loss, {int(curve[-1, 0])} steps")
        figures = evaluate(
            run, store, raw, run / "results", arguments.device, everything=name == "bottleneck"
        )
        report["models"][name] = {"train_s": seconds, "loss": curve.tolist(), **figures}
        (out / "learn.json").write_text(json.dumps(report, indent=1))
        print(line(name, report["models"][name]), flush=True)
    main_model = report["models"]["bottleneck"]
    for kind in ("own", "cross", "picture", "shuffled", "deaf"):
        figures = main_model[kind]
        print(f"  {kind:9} r {figures['r']:+.2f} (worst {figures['worst_r']:+.2f}), lags {figures['lags']}")
    report["criteria"] = verdicts(main_model)
    (out / "learn.json").write_text(json.dumps(report, indent=1))
    for criterion, met in report["criteria"].items():
        print(f"  {'met    ' if met else 'NOT MET'} {criterion}")
    print(f"figures: {out / 'learn.json'}   curves: {out / 'bottleneck'}")
    raise SystemExit(0 if all(report["criteria"].values()) else 1)


def line(name: str, figures: dict[str, Any]) -> str:
    parts = (
        f"{name:14} trained {figures['train_s']:4.0f} s",
        f"own r {figures['own']['r']:+.2f}, cross r {figures['cross']['r']:+.2f}",
        f"PSNR {figures['psnr_in_mask_db']:.1f} dB (identity {figures['psnr_of_identity_frame_db']:.1f})",
        f"flicker {figures['flicker_grey_levels']:.1f}",
        f"{figures['frames_per_s']:.0f} frames/s",
    )
    return "   ".join(parts)


if __name__ == "__main__":
    main()
