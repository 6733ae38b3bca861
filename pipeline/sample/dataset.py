"""Writes a small data set whose synchrony is known: for a first try, the demo and tests.

Its pictures come from files inside two installed packages, its sound is made from the mouth's opening, so
the true lag of every clip is 0. In LRS2's layout, with both speakers in each split, and one clip broken on
purpose. Sources and their licences: see `sample.faces`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from syncdiff.pipeline.media.write import BIT_EXACT, Encoding, write_video
from syncdiff.pipeline.records import FPS, U8
from syncdiff.pipeline.sample.faces import Carphone, Portrait, read_carphone, sway
from syncdiff.pipeline.sample.speech import speak_opening, syllables, synthesise, transcript

VERSION = 1  # of the recipe: a sample made by another one is not taken for the same
TRUTH = "truth.json"
SPEAKERS = ("astronaut", "carphone")
BAD_CLIP = "carphone/99999"
_PITCH_HZ = {"astronaut": 205.0, "carphone": 118.0}
# Frames of the carphone clip that each split walks through: none is seen in two of them.
_CARPHONE_RANGE = {"train": (40, 73), "val": (74, 89), "test": (90, 114)}
# H.264 and AAC, as published data sets are. No B-frames, so that the pictures start at 0; one thread and no
# dates, so that the bytes are the same every time.
_ENCODING = Encoding(
    container="mp4",
    picture=(
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "17", "-bf", "0", "-pix_fmt", "yuv420p",
        "-threads", "1", *BIT_EXACT,
    ),
    sound=("-c:a", "aac", "-b:a", "64k"),
    even_sides=True,
)  # fmt: skip


@dataclass(frozen=True)
class SampleClip:
    """A clip to be written: its number among all is its name and part of its random seed."""

    number: int
    speaker: str
    split: str

    @property
    def name(self) -> str:
        return f"{self.speaker}/{self.number:05d}"


def make_sample(out_dir: Path, *, seed: int = 0, train_clips: int = 5) -> Path:
    """Write the data set into `out_dir` (new or empty) and return it.

    Per speaker `train_clips` clips of train, one of val and two of test, each 2.4 to 4 s at 25 fps with
    224x224 pixels, AAC sound at 16 kHz, and a text. Beside the lists lies `truth.json`: for each clip the lag
    (0) and how far the mouth is open in each frame, 0 to 1. More training clips leave the others as
    they are. A sample already there is not touched.

    Raises FileExistsError when `out_dir` holds anything else, ClipError("sample", "material-missing") when a
    package lacks its file.
    """
    out_dir = Path(out_dir).absolute()
    recipe = {"version": VERSION, "seed": seed, "train_clips": train_clips}
    if out_dir.exists() and any(out_dir.iterdir()):
        truth = out_dir / TRUTH
        present = json.loads(truth.read_text("utf-8")).get("recipe") if truth.is_file() else None
        if present == recipe:
            return out_dir
        what = "a sample of another recipe" if present else "something else"
        raise FileExistsError(f"{out_dir} holds {what}; give another folder, or remove it")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    try:
        part.chmod(0o755)
        _write_all(part, recipe, seed, train_clips)
        part.replace(out_dir)  # onto an empty folder or none
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return out_dir


def _write_all(root: Path, recipe: dict[str, int], seed: int, train_clips: int) -> None:
    counts = {"train": (1, train_clips), "val": (10_001, 1), "test": (20_001, 2)}
    clips = [
        SampleClip(first + i, speaker, split)
        for speaker in SPEAKERS
        for split, (first, count) in counts.items()
        for i in range(count)
    ]
    portrait, carphone, main = Portrait(), read_carphone(), root / "mvlrs_v1" / "main"

    def write(clip: SampleClip) -> NDArray[np.float64]:
        rng = np.random.default_rng([seed, SPEAKERS.index(clip.speaker), clip.number])
        return _write_clip(main, clip, portrait, carphone, rng)

    with ThreadPoolExecutor(max_workers=4) as pool:  # the encoders are processes of their own
        openings = list(pool.map(write, clips))
    # A copy cut off in the middle, as by an interrupted download: its index, at the end, is gone.
    whole = (main / f"{clips[-1].name}.mp4").read_bytes()
    (main / f"{BAD_CLIP}.mp4").write_bytes(whole[: len(whole) // 2])
    (main / f"{BAD_CLIP}.txt").write_text("Text:  NADA\nConf:  1\n", "utf-8")
    for split in ("train", "val", "test"):
        names = [clip.name for clip in clips if clip.split == split] + [BAD_CLIP] * (split == "train")
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    described = {
        f"lrs2/{clip.split}/{clip.name}": {
            **asdict(clip),
            "av_lag_frames": 0,
            "opening": opening.round(4).tolist(),
        }
        for clip, opening in zip(clips, openings, strict=True)
    }
    bad = [f"lrs2/train/{BAD_CLIP}"]
    truth = {"recipe": recipe, "fps": FPS, "clips": described, "bad": bad}
    (root / TRUTH).write_text(json.dumps(truth, indent=1) + "\n", "utf-8")


def _write_clip(
    main: Path, clip: SampleClip, portrait: Portrait, carphone: Carphone, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Write picture, sound and text of a clip; the opening [T] that drives them is returned."""
    num_frames = int(rng.integers(60, 101))
    frames: Iterator[U8]
    if clip.speaker == "astronaut":
        opening = speak_opening(num_frames, rng)
        heads = sway(num_frames, rng)
        frames = (portrait.frame(gap, head) for gap, head in zip(opening, heads, strict=True))
    else:
        path = carphone.walk(*_CARPHONE_RANGE[clip.split], num_frames, rng)
        opening = carphone.opening[path]
        frames = (carphone.frames[index] for index in path)
    target = main / f"{clip.name}.mp4"
    pcm = synthesise(opening, _PITCH_HZ[clip.speaker] * rng.uniform(0.9, 1.1), rng)
    gain = rng.uniform(0.88, 1.12) * np.exp(rng.normal(0, 0.03, 3))  # the clip's own light
    direction = -1 if rng.integers(2) else 1  # some are mirrored
    lit = (np.clip(frame * gain + 0.5, 0, 255).astype(np.uint8)[:, ::direction] for frame in frames)
    write_video(target, lit, pcm, _ENCODING)
    said = transcript(syllables(opening), rng)
    target.with_suffix(".txt").write_text(f"Text:  {said}\nConf:  {rng.integers(3, 8)}\n", "utf-8")
    return opening
