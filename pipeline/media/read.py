"""Any video that ffmpeg reads becomes RGB frames at 25 a second and mono sound at 16 kHz, in step with each
other.

Time. The first picture that decodes, at the time p of the file, is put on the 25-per-second grid; every
other one goes to the nearest grid point, by its time stamp. A source at 25 per second therefore passes
frame by frame, whatever its offset, and no picture is more than 20 ms from its place. The sound is cut or
padded to the sample, so that its sample 0 lies at the time of frame 0. Where the sound starts earlier than
the picture, the first picture is repeated to the nearest whole frame and the sound keeps all but the
fraction of a frame; where it starts later, silence is put before it.

Pictures are turned upright by the file's rotation, given square pixels by scaling the width, and converted
to RGB; transparency is dropped. A picture whose size changes within the file is scaled to the first size.

Files are not trusted: see `syncdiff.pipeline.media.probe.INPUT_OPTIONS` and `syncdiff.pipeline.media.ffmpeg`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import ffmpeg
import numpy as np

from syncdiff.pipeline.media.ffmpeg import STALL_S, FfmpegProcess, command_line, error_lines
from syncdiff.pipeline.media.probe import MAX_DURATION_S, MAX_PIXELS, MediaInfo, media_input, probe
from syncdiff.pipeline.records import FPS, I16, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, U8, ClipError

CHUNK_BYTES = 64 * 1024 * 1024  # 17 s of 224x224 pixels, so that most clips of the data sets are decoded once
# A file may claim to show each picture for an hour. A frame of a still scene takes 10 bytes and more in the
# thriftiest codecs, one of a face that speaks a hundred times as much.
MIN_BYTES_PER_FRAME = 4
MIN_DECODED_SHARE = 0.5  # of a damaged file; with less, what the rest says of the clip is doubtful


class Video:
    """Frames of one file: `info`, `fps`, and `chunks`, which can be gone through more than once.

    `damage` is None until a pass over the frames has met an error in the file; then it is ffmpeg's first
    message. A damaged file is used as far as it decodes, unless less than MIN_DECODED_SHARE of its stated
    duration does. by_index: every picture that the file stores, once, whatever its time stamp; `fps` is then
    only what they are said to have.
    """

    def __init__(
        self,
        path: Path,
        info: MediaInfo,
        *,
        fps: Fraction = Fraction(FPS),
        stall_s: float = STALL_S,
        scaling: str | None = None,
        by_index: bool = False,
    ) -> None:
        self.path = path
        self.info = info
        self.fps = fps
        self.damage: str | None = None
        self._stall_s = stall_s
        self._scaling = scaling
        self._by_index = by_index
        self._whole: U8 | None = None

    def chunks(self, max_bytes: int = CHUNK_BYTES) -> Iterator[U8]:
        """The frames in order, as arrays [t,H,W,3] uint8 RGB of at most `max_bytes` (but at least one frame).

        The file is decoded again on each call, unless all of it fitted into one chunk, which is then kept
        (and read-only). Memory does not grow with the length of the video.

        Raises ClipError("media", ...) with reason decode-error, decode-timeout, truncated, too-long or
        too-few-pictures.
        """
        if self._whole is not None and self._whole.nbytes <= max_bytes:
            yield self._whole
            return
        size_bytes, total = self.path.stat().st_size, 0
        for chunk, is_last in self._decode(max_bytes):
            total += len(chunk)
            if (total - self.fps) * MIN_BYTES_PER_FRAME > size_bytes:
                detail = f"it would become {total:,} frames and more, of a file of {size_bytes:,} bytes"
                raise ClipError("media", "too-few-pictures", detail)
            if total > MAX_DURATION_S * self.fps:
                raise ClipError("media", "too-long", f"it lasts longer than {MAX_DURATION_S // 3600} hours")
            if is_last and total == len(chunk):
                chunk.flags.writeable = False
                self._whole = chunk
            if len(chunk):
                yield chunk

    def _decode(self, max_bytes: int) -> Iterator[tuple[U8, bool]]:
        """Chunks, each with whether it is the last one, which may be empty."""
        info, total, is_last = self.info, 0, False
        # A change of size must not set up the filters anew: setpts and fps would count time from zero again.
        stream = media_input(max_pixels=MAX_PIXELS, reinit_filter=0)["V:0"]
        if self._by_index:
            stream = stream.filter("settb", str(1 / self.fps)).filter("setpts", "N")
        else:
            # In microseconds, since the time base of a stream can be as coarse as its frames.
            lead_us = info.lead_frames * 1_000_000 // FPS
            stream = stream.filter("settb", "1/1000000").filter("setpts", f"PTS-STARTPTS+{lead_us}")
        # start_time repeats the first picture back to the start.
        stream = stream.filter("fps", fps=self.fps, start_time=0)
        kernel = {"flags": self._scaling} if self._scaling else {}
        stream = stream.filter("scale", info.width_px, info.height_px, **kernel)
        output = ffmpeg.output(stream, "-", f="rawvideo", pix_fmt="rgb24")

        frame_bytes = info.height_px * info.width_px * 3
        chunk_frames = max(1, max_bytes // frame_bytes)
        with FfmpegProcess(command_line(output, self.path, "error"), stall_s=self._stall_s) as process:
            while not is_last:
                chunk = np.empty((chunk_frames, info.height_px, info.width_px, 3), np.uint8)
                filled = process.read_into(chunk.data.cast("B")) // frame_bytes
                total += filled
                is_last = filled < chunk_frames
                if is_last:
                    self._check_end(process.finish(), error_lines(process.log), total)
                yield chunk[:filled], is_last

    def _check_end(self, status: int, messages: list[str], frames: int) -> None:
        """Note what ffmpeg complained of; raise ClipError where too little could be decoded."""
        if messages or status != 0:
            self.damage = messages[0] if messages else f"ffmpeg ended with status {status}"
        if frames == 0:
            raise ClipError("media", "decode-error", f"no picture could be decoded: {self.damage}")
        promised = round((self.info.duration_s or 0.0) * float(self.fps))
        if self.damage and frames < MIN_DECODED_SHARE * promised:
            raise ClipError("media", "truncated", f"{frames} of {promised} frames decode: {self.damage}")


def open_video(
    path: Path,
    *,
    info: MediaInfo | None = None,
    fps: Fraction = Fraction(FPS),
    size_px: tuple[int, int] | None = None,
    by_index: bool = False,
    stall_s: float = STALL_S,
) -> Video:
    """Open the pictures of a file; `info` saves probing it again. `fps` may be another rate than 25: the
    source's own, for a generator that keeps it. `size_px`: width and height to scale to, by Lanczos' kernel.
    `by_index`: the pictures one by one as they are stored (see `Video`).

    Raises ClipError as `probe` does, and with reason no-video.
    """
    info = info or probe(path, stall_s=stall_s)
    if not info.has_video:
        raise ClipError("media", "no-video", "the file holds no moving picture")
    if size_px is None:
        return Video(path, info, fps=fps, stall_s=stall_s, by_index=by_index)
    scaled = replace(info, width_px=size_px[0], height_px=size_px[1])
    return Video(path, scaled, fps=fps, stall_s=stall_s, scaling="lanczos", by_index=by_index)


def read_audio(path: Path, *, info: MediaInfo | None = None, stall_s: float = STALL_S) -> I16 | None:
    """Sound of a file: int16 [S], mono, 16 kHz, sample 0 at the time of frame 0; None if it has no sound.

    Several channels are mixed by ffmpeg's rule. `info` saves probing again.

    Raises ClipError as `probe` and `decode_sound` do.
    """
    info = info or probe(path, stall_s=stall_s)
    if not info.has_audio:
        return None
    pcm = decode_sound(path, {"sample_rate": SAMPLE_RATE_HZ}, stall_s=stall_s)
    shift = round(info.sound_offset_s * SAMPLE_RATE_HZ)
    return pcm[-shift:].copy() if shift < 0 else np.concatenate([np.zeros(shift, np.int16), pcm])


def decode_sound(path: Path, resampling: Mapping[str, str | int], *, stall_s: float = STALL_S) -> I16:
    """The first sound stream as it comes: int16 [S], mono, 16 kHz, not aligned with the pictures; gaps in the
    time stamps become silence. `resampling`: further options of ffmpeg's `aresample`.

    Raises ClipError("media", ...) with reason decode-error or decode-timeout.
    """
    stream = media_input()["a:0"].filter("aresample", **{"async": 1, **resampling})
    command = ffmpeg.output(stream, "-", f="s16le", acodec="pcm_s16le", ac=1, ar=SAMPLE_RATE_HZ)
    with FfmpegProcess(command_line(command, path, "error"), stall_s=stall_s) as process:
        data = process.read_all(2 * SAMPLE_RATE_HZ * MAX_DURATION_S)
        process.finish()
        messages = error_lines(process.log)
    if not data:
        raise ClipError("media", "decode-error", f"no sound could be decoded: {messages[:1]}")
    return np.frombuffer(data, "<i2").astype(np.int16, copy=False)


def fit_audio(pcm: I16, num_frames: int) -> tuple[I16, int]:
    """Cut or zero-pad the tail so that there are exactly 640 samples a frame.

    Returns the sound [num_frames * 640] and how many samples were appended (negative: cut off).
    """
    missing = num_frames * SAMPLES_PER_FRAME - len(pcm)
    return (np.pad(pcm, (0, missing)) if missing > 0 else pcm[: len(pcm) + missing]), missing
