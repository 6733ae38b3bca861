from __future__ import annotations

from syncdiff.evaluate.media_notes import NOT_ALIKE, media_notes
from syncdiff.evaluate.records import MediaFormat


def coded(method: str, clip: str, video: str, kbps: float | None = 300.0) -> MediaFormat:
    return MediaFormat(method, clip, "mov", video, kbps, 25.0, "aac", 128.0)


def test_each_method_is_described_and_a_difference_is_a_warning():
    media = [coded("a", "1", "h264", 100.0), coded("a", "2", "h264", 300.0), coded("b", "1", "hevc", None)]
    warning, first, second = media_notes(("a", "b", "none"), media, reencoded=False)
    assert warning == NOT_ALIKE
    assert first == "Files of a: MP4/MOV, h264 at 25 fps, sound aac; pictures 200 kbit/s, sound 128 kbit/s."
    assert "hevc" in second and "pictures of unstated bit rate" in second
    assert NOT_ALIKE not in media_notes(("a", "b"), media, reencoded=True)


def test_bit_rates_alone_are_no_warning_and_a_mixture_is_told():
    media = [coded("a", "1", "h264", 100.0), coded("b", "1", "h264", 900.0)]
    assert NOT_ALIKE not in media_notes(("a", "b"), media, reencoded=False)
    mixed = [coded("a", "1", "h264"), coded("a", "2", "h264"), coded("a", "3", "hevc")]
    (line,) = media_notes(("a",), mixed, reencoded=False)
    assert "h264 (2 of 3 files)" in line
