"""How a generated file differs from its reference in frames, size, rate, start and shape of pixels."""

from __future__ import annotations

import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair, of_one_length
from syncdiff.evaluate.metrics.base import Statistics
from syncdiff.evaluate.records import Case, FormatMismatch
from syncdiff.pipeline.records import FPS

MAX_START_DIFFERENCE_S = 0.5 / FPS  # half a frame: less cannot be told from how containers round


def measure_format(pair: ClipPair) -> Statistics:
    """Frames that are compared, sizes, rates, starts and pixels of the generated and the reference file."""
    both = pair.compared
    frames = [clip.num_frames for clip in both]
    infos = [clip.info for clip in both]
    # nothing leads in `Footage`: the sound's offset is how much later than the picture it begins
    starts = [-info.sound_offset_s for info in infos]
    start_s = starts[0] - starts[1] if all(info.has_audio for info in infos) else 0.0
    late = abs(start_s) > MAX_START_DIFFERENCE_S
    return {
        "frames": np.array(frames),
        "flagged": np.array(not of_one_length(*frames) or late),
        "sizes_px": np.array([clip.size_px for clip in both]),
        "fps": np.array([np.nan if info.source_fps is None else info.source_fps for info in infos]),
        "by_index": np.array(pair.by_index),
        "start_s": np.array(start_s),
        "pixel_aspects": np.array([info.pixel_aspect for info in infos]),
    }


def format_mismatch(case: Case, statistics: Statistics) -> FormatMismatch:
    """The record of a case from what `measure_format` found."""
    frames = [int(count) for count in statistics["frames"]]
    generated_px, reference_px = ((int(w), int(h)) for w, h in statistics["sizes_px"])
    rates = [None if np.isnan(rate) else float(rate) for rate in statistics["fps"]]
    aspects = [float(aspect) for aspect in statistics["pixel_aspects"]]
    return FormatMismatch(
        method=case.method,
        clip=case.clip,
        generated_frames=frames[0],
        reference_frames=frames[1],
        flagged=bool(statistics["flagged"]),
        resized_from=None if generated_px == reference_px else generated_px,
        reference_size=reference_px,
        generated_fps=rates[0],
        reference_fps=rates[1],
        by_index=bool(statistics["by_index"]),
        start_s=float(statistics["start_s"]),
        generated_pixel_aspect=aspects[0],
        reference_pixel_aspect=aspects[1],
    )
