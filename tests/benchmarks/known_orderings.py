"""Real clips made worse in ways whose order is known, and whether each metric orders them so.

    python tests/benchmarks/known_orderings.py CLIPS_DIR OUT_DIR [--clips a.mp4 b.mp4 ...]

Writes OUT_DIR/reference and OUT_DIR/methods/<name>, runs syncdiff-eval on them (report in OUT_DIR/eval), and
prints one line for each expectation. LSE, LPIPS and FID join in where their weights are at hand (with
--unverified-weights such as stand_in_weights.py writes: LPIPS alone means something then).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import wave
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from syncdiff.pipeline.faces.align import crop_faces, crop_matrices, paste_back, to_crop
from syncdiff.pipeline.faces.mask import MaskConfig, mouth_masks
from syncdiff.pipeline.faces.track import make_backend, track_faces
from syncdiff.pipeline.faces.tracker import TrackConfig
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.media.read import fit_audio, open_video, read_audio
from syncdiff.pipeline.records import FPS, I16, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, U8

CLIPS = ("syncnet_example.avi", "vox2_00086.mp4", "vox2_00104.mp4", "grid_bbaf2n.mpg", "vretalk_1.mp4",
         "grid_lbax4n.mpg", "vox2_517600055.mp4")  # fmt: skip

# value -> methods from best to worst
EXPECTED = {
    "psnr": ("copy", "blur1", "blur3"),
    "ssim": ("copy", "blur1", "blur3"),
    "psnr_mouth": ("copy", "blur1", "blur3"),
    "ssim_mouth": ("copy", "blur1", "mouth-of-another"),
    "lpips": ("copy", "blur1", "blur3"),
    "fid": ("copy", "blur1", "blur3"),
    "sharpness_face": ("copy", "blur1", "blur3"),
    "cpbd": ("copy", "blur1", "blur3"),
    "lmd": ("copy", "mouth-of-another"),
    "lmd_relative": ("copy", "mouth-of-another"),
    "csim": ("copy", "blur3"),
    "flicker_mouth": ("copy", "drops"),
    "av_correlation": ("copy", "mouth-of-another"),
    "av_lag_abs": ("copy", "sound-5", "sound-10"),
    "lse_c": ("copy", "sound-10"),
    "lse_d": ("copy", "mouth-of-another"),
}


def write(path: Path, frames: U8, pcm: I16, *, quality: str = "12") -> None:
    """H.264 with the sound, 25 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = path.with_suffix(".wav")
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm.tobytes())
    height, width = frames.shape[1:3]
    video = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(FPS), "-i", "-")
    codec = ("-c:v", "libx264", "-preset", "veryfast", "-crf", quality, "-pix_fmt", "yuv420p")
    command = [ffmpeg_binary(), "-loglevel", "error", "-y", *video, "-i", str(sound), *codec, "-c:a",
               "pcm_s16le", str(path)]  # fmt: skip
    subprocess.run(command, input=frames.tobytes(), check=True)
    sound.unlink()


def read(path: Path, most: int = 100) -> tuple[U8, I16]:
    """At most four seconds, even-sized."""
    frames = np.concatenate(list(open_video(path).chunks()))[:most]
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    pcm = read_audio(path)
    assert pcm is not None
    return frames, fit_audio(pcm, len(frames))[0]


def delayed(pcm: I16, frames: int) -> I16:
    shift = frames * SAMPLES_PER_FRAME
    return np.concatenate([np.zeros(shift, np.int16), pcm[:-shift]])


def each(frames: U8, change: Callable[[U8], U8]) -> U8:
    return np.stack([change(frame) for frame in frames])


def dropped(frames: U8) -> U8:
    """Every third frame repeats the one before."""
    index = np.arange(len(frames))
    return frames[np.where(index % 3 == 2, index - 1, index)]


def jpeg(frame: U8) -> U8:
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 12])[1], cv2.IMREAD_COLOR)


def mouth_pasted(frames: U8, other: U8) -> U8:
    """The mouth of another speaker in this one's face."""
    backend = make_backend("dlib")
    landmarks, matrices = [], []
    for clip in (frames, other):
        track = max(track_faces([clip], backend, TrackConfig(min_track_frames=5)).tracks, key=len)
        whole = np.repeat(track.landmarks_px[:1], track.start_frame, axis=0)
        points = np.concatenate([whole, track.landmarks_px])
        points = np.concatenate([points, np.repeat(points[-1:], len(clip) - len(points), axis=0)])
        landmarks.append(points)
        matrices.append(crop_matrices(points, 256))
    faces = crop_faces(other, matrices[1], 256)
    masks = mouth_masks(to_crop(landmarks[0], matrices[0]), 256, MaskConfig(kind="landmarks"))
    pasted = [
        paste_back(frame, faces[t % len(faces)], matrices[0][t], masks[t]) for t, frame in enumerate(frames)
    ]
    return np.stack(pasted)


def make_methods(clips: list[Path], out: Path) -> None:
    loaded = [read(path) for path in clips]
    for number, (path, (frames, pcm)) in enumerate(zip(clips, loaded, strict=True)):
        other = loaded[(number + 1) % len(loaded)][0]
        made = {
            "copy": (frames, pcm),
            "sound-2": (frames, delayed(pcm, 2)),
            "sound-5": (frames, delayed(pcm, 5)),
            "sound-10": (frames, delayed(pcm, 10)),
            "blur1": (each(frames, lambda f: cv2.GaussianBlur(f, (0, 0), 1)), pcm),
            "blur3": (each(frames, lambda f: cv2.GaussianBlur(f, (0, 0), 3)), pcm),
            "jpeg": (each(frames, jpeg), pcm),
            "drops": (dropped(frames), pcm),
            "mouth-of-another": (mouth_pasted(frames, other), pcm),
        }
        write(out / "reference" / f"{path.stem}.mkv", frames, pcm, quality="0")
        for method, (pictures, sound) in made.items():
            write(out / "methods" / method / f"{path.stem}.mkv", pictures, sound)


def read_means(found: dict[str, Any]) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """method -> value -> mean over the shared clips, and which way of each value is good."""
    better = {v["name"]: v["better"] for m in found["metrics"] for v in m["values"]}
    better["av_lag_abs"] = "lower"  # the report adds the absolute value of what should be zero
    means: dict[str, dict[str, float]] = {}
    for table in found["results"]:
        for value, methods in table["values"].items():
            for method, cells in methods.items():
                mean = cells["shared"]["mean"]
                if mean is not None:
                    means.setdefault(method, {})[value] = mean
    return means, better


def report(metrics: dict[str, dict[str, float]], better: dict[str, str]) -> bool:
    """Print each expectation with the figures; whether all that could be checked hold."""
    well = True
    for value, order in EXPECTED.items():
        figures = [metrics.get(method, {}).get(value) for method in order]
        if any(figure is None for figure in figures):
            print(f"  not computed  {value}")
            continue
        signs = {"higher": -1, "lower": 1, "zero": 1}
        keys = [signs.get(better[value], 1) * (f if f is not None else 0.0) for f in figures]
        holds = all(a < b for a, b in pairwise(keys))
        well &= holds
        shown = "  ".join(f"{m} {f:.4g}" for m, f in zip(order, figures, strict=True))
        print(f"  {'as expected' if holds else 'NOT as expected':16}{value}: {shown}")
    return well


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", nargs="+", default=CLIPS)
    parser.add_argument("--metrics")
    parser.add_argument("--unverified-weights", action="store_true")
    options = parser.parse_args()
    if not (options.out / "methods").is_dir():
        make_methods([options.folder / name for name in options.clips], options.out)
    evaluator = Path(sys.executable).with_name("syncdiff-eval")
    command = [evaluator, options.out / "methods", "--reference", options.out / "reference", "--sub-folders",
               "--out", options.out / "eval", "--baseline", "copy"]  # fmt: skip
    command += ["--metrics", options.metrics] if options.metrics else []
    command += ["--unverified-weights"] if options.unverified_weights else []
    subprocess.run(command, check=True)
    found = json.loads((options.out / "eval" / "metrics.json").read_text())
    metrics, better = read_means(found)
    sys.exit(not report(metrics, better))


if __name__ == "__main__":
    main()
