"""Lip-sync error by protocol `syncnet-tracks`: faces found and followed by S3FD, as on videos in the wild.

Source: Wav2Lip's script for real videos (evaluation/scores_LSE, calculate_scores_real_videos.sh) and
LatentSync's evaluation, both of which run SyncNet's own pipeline (joonson/syncnet_python, run_pipeline.py and
run_syncnet.py). Its steps are here, with the networks and the detector of the package syncnet-python, whose
`SyncNetPipeline` gives the same figures:

    video at 25 fps (lossy AVI) → frames (JPEG) → S3FD on a quarter of their size → tracks within scenes
    → crops of 224x224 (lossy AVI) → frames (JPEG) → SyncNet on each track and the sound beside it

The lossy files in between are part of the definition: without them the distances move.

Tracks of no more than `min_track_frames` frames are left out (the pipeline's rule: 100 in Wav2Lip, 50 in
LatentSync), so short clips vanish; they are counted as failed, reason "no-track". A clip's value is the mean
over its tracks, its offset that of the most confident one. Values do not compare with those of
`wav2lip-lrs`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import ffmpeg
import numpy as np
from numpy.typing import NDArray
from scenedetect import ContentDetector, detect
from scipy.interpolate import interp1d
from scipy.signal import medfilt
from syncnet_python.detectors.s3fd import S3FD
from syncnet_python.detectors.s3fd.nets import S3FDNet
from torch import Tensor

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics
from syncdiff.evaluate.metrics.sync.lse import LSE_VALUES, SyncDistances, distances_between
from syncdiff.evaluate.metrics.sync.lse_media import decode_jpegs
from syncdiff.evaluate.metrics.sync.syncnet import IMAGE_SIZE_PX, SyncNet
from syncdiff.pipeline.media.ffmpeg import FfmpegProcess, command_line, error_lines
from syncdiff.pipeline.media.probe import MAX_DURATION_S, MAX_PIXELS, media_input
from syncdiff.pipeline.records import FPS, I16, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, U8, ClipError

F64 = NDArray[np.float64]

# The defaults of run_pipeline.py.
DETECTION_SCALE = 0.25
MIN_CONFIDENCE = 0.9
SAME_FACE_IOU = 0.5
MOST_FRAMES_MISSED = 25
MIN_FACE_PX = 100
CROP_SCALE = 0.4  # the crop reaches beyond the face by this share of its half side
SMOOTHED_FRAMES = 13
PADDING_GREY = 110


@dataclass(frozen=True)
class FaceTrack:
    """A face in consecutive frames: boxes_px [T,4] (x0, y0, x1, y1), interpolated where it was missed."""

    start_frame: int
    boxes_px: F64

    @property
    def frames(self) -> range:
        return range(self.start_frame, self.start_frame + len(self.boxes_px))


class LipSyncTracks(Metric):
    """LSE by protocol `syncnet-tracks`."""

    name = "lse"
    values = LSE_VALUES
    needs_reference = False
    needs_sound = True
    weights = ("syncnet", "s3fd-syncnet")

    def __init__(self, network: SyncNet, detector: S3FD, min_track_frames: int) -> None:
        self._network = network
        self._detector = detector
        self._min_track_frames = min_track_frames

    def settings(self) -> dict[str, Any]:
        return {
            "protocol": "syncnet-tracks",
            "fps": FPS,
            "min_track_frames": self._min_track_frames,
            "crop_scale": CROP_SCALE,
            "min_face_px": MIN_FACE_PX,
        }

    def measure(self, pair: ClipPair) -> Statistics:
        if not pair.generated.info.has_video:
            raise ClipError("media", "no-video", "the file holds no moving picture")
        if not pair.sound.info.has_audio:
            raise ClipError("media", "no-sound", "the file holds no sound")
        tracks = score_tracks(
            self._network, self._detector, pair.generated.path, pair.sound.path, self._min_track_frames
        )
        if not tracks:
            detail = f"no face could be followed for more than {self._min_track_frames} frames"
            raise ClipError(self.name, "no-track", detail)
        return {
            "offsets": np.array([track.offset_frames for track in tracks]),
            "confidences": np.array([track.lse_c for track in tracks]),
            "distances": np.array([track.lse_d for track in tracks]),
        }

    def score(self, statistics: Statistics) -> dict[str, float]:
        confidences = statistics["confidences"]
        return {
            "lse_d": float(np.mean(statistics["distances"])),
            "lse_c": float(np.mean(confidences)),
            "sync_offset": float(statistics["offsets"][np.argmax(confidences)]),
        }


def build_detector(weights: Mapping[str, Tensor], device: str) -> S3FD:
    """S3FD with the weights of `sfd_face.pth`. Raises RuntimeError for those of another network."""
    network = S3FDNet(device=device)
    network.load_state_dict(weights)
    return S3FD(network, device=device)


def score_tracks(
    network: SyncNet, detector: S3FD, video: Path, sound: Path, min_track_frames: int
) -> list[SyncDistances]:
    """Distances of each face track of a video and the sound beside it.

    Raises ClipError("lse", "pipeline-failed") for what cannot be read, ("lse", "too-short") where a track has
    no sound.
    """
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        avi, crop = Path(folder) / "video.avi", Path(folder) / "crop.avi"
        whole = media_input(max_pixels=MAX_PIXELS)
        # Reports of progress on standard output show that a process that writes files is alive.
        progress = ("-progress", "pipe:1")
        # The sound stays in the file: beside it ffmpeg repeats frames where the two do not start together.
        to_avi = ffmpeg.output(whole, str(avi), r=FPS, **{"q:v": 2, "async": 1})
        _run(to_avi.global_args(*progress), video)
        to_jpeg = ffmpeg.output(media_input(), f"{folder}/%06d.jpg", f="image2", threads=1, **{"q:v": 2})
        _run(to_jpeg.global_args(*progress), avi)
        pictures = sorted(Path(folder).glob("*.jpg"))
        boxes = [detect_faces(detector, _read_picture(picture)) for picture in pictures]
        pcm = _read_sound(sound)
        scored = []
        for scene in find_scenes(avi):
            if len(scene) < min_track_frames:
                continue
            for track in follow_faces(boxes[scene.start : scene.stop], scene.start, min_track_frames):
                _write_crops(crop, pictures, track)
                frames = decode_jpegs(ffmpeg.output(media_input(), "-", f="mpjpeg", threads=1), crop)
                own = pcm[SAMPLES_PER_FRAME * track.frames.start : SAMPLES_PER_FRAME * track.frames.stop]
                scored.append(distances_between(network, frames, own))
        return scored


def detect_faces(detector: S3FD, picture: U8) -> F64:
    """Boxes [n,4] (x0, y0, x1, y1) in pixels of a picture [H,W,3] BGR, the most certain first."""
    detections = detector.detect_faces(
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), conf_th=MIN_CONFIDENCE, scales=[DETECTION_SCALE]
    )
    return np.asarray(detections[:, :4], np.float64)


def find_scenes(video: Path) -> list[range]:
    """Frames between the cuts that PySceneDetect's content detector sees; all frames where it sees none."""
    # It logs a line for each video at a level that is shown.
    logging.getLogger("pyscenedetect").setLevel(logging.CRITICAL)
    scenes = detect(str(video), ContentDetector(), start_in_scene=True)
    return [range(start.get_frames(), end.get_frames()) for start, end in scenes]


def follow_faces(boxes: Sequence[F64], start_frame: int, min_track_frames: int) -> list[FaceTrack]:
    """The face tracks of one scene, of more than `min_track_frames` detections each; boxes [n,4] a frame.

    As run_pipeline.py's track_shot: a track begins with the first face left and goes on with the first one
    left in each later frame, where that overlaps and not too many frames lie between.
    """
    left = [list(faces) for faces in boxes]
    tracks = []
    while any(left):
        frames: list[int] = []
        path: list[F64] = []
        for frame, faces in enumerate(left, start_frame):
            near = not frames or frame - frames[-1] <= MOST_FRAMES_MISSED
            if faces and near and (not path or _iou(faces[0], path[-1]) > SAME_FACE_IOU):
                frames.append(frame)
                path.append(faces.pop(0))
        if len(frames) <= min_track_frames:
            continue
        whole = interp1d(frames, path, axis=0)(np.arange(frames[0], frames[-1] + 1))
        if (whole[:, 2:] - whole[:, :2]).mean(axis=0).max() > MIN_FACE_PX:
            tracks.append(FaceTrack(frames[0], whole))
    return tracks


def _iou(a: F64, b: F64) -> float:
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = max(0.0, width) * max(0.0, height)
    return float(both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both + 1e-8))


def _write_crops(path: Path, pictures: Sequence[Path], track: FaceTrack) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"XVID"), FPS, (IMAGE_SIZE_PX, IMAGE_SIZE_PX))
    for crop in crop_faces((_read_picture(pictures[frame]) for frame in track.frames), track.boxes_px):
        writer.write(crop)
    writer.release()


def crop_faces(pictures: Iterator[U8], boxes_px: F64) -> Iterator[U8]:
    """Crops [224,224,3] around the faces, smoothed over time: run_pipeline.py's crop_video.

    With s for half the face's side and c for CROP_SCALE a crop reaches from s above its centre to s (1 + 2c)
    below it, so that the chin is in it, and s (1 + c) to both sides.
    """
    x0, y0, x1, y1 = boxes_px.T
    smooth = [
        medfilt(v, SMOOTHED_FRAMES) for v in (np.maximum(x1 - x0, y1 - y0) / 2, (x0 + x1) / 2, (y0 + y1) / 2)
    ]
    for picture, half, x, y in zip(pictures, *smooth, strict=True):
        pad = int(half * (1 + 2 * CROP_SCALE))
        padded = cv2.copyMakeBorder(
            picture, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(PADDING_GREY,) * 3
        )
        side = half * (1 + CROP_SCALE)
        rows = slice(int(y + pad - half), int(y + pad + half * (1 + 2 * CROP_SCALE)))
        columns = slice(int(x + pad - side), int(x + pad + side))
        yield np.asarray(cv2.resize(padded[rows, columns], (IMAGE_SIZE_PX, IMAGE_SIZE_PX)), np.uint8)


def _read_picture(path: Path) -> U8:
    """[H,W,3] BGR."""
    return np.asarray(cv2.imread(str(path)), np.uint8)


def _read_sound(path: Path) -> I16:
    """int16 [S], mono, 16 kHz: the first sound stream from its own beginning, as the pipeline takes it."""
    graph = ffmpeg.output(media_input(), "-", vn=None, f="s16le", acodec="pcm_s16le", ac=1, ar=SAMPLE_RATE_HZ)
    return np.frombuffer(_run(graph, path), "<i2").astype(np.int16, copy=False)


def _run(graph: Any, source: Path) -> bytearray:
    """Run an ffmpeg-python graph to its end; what it writes to standard output.

    Raises ClipError("lse", "pipeline-failed") with ffmpeg's message, ("media", "decode-timeout").
    """
    with FfmpegProcess(command_line(graph, source, "error")) as process:
        data = process.read_all(2 * SAMPLE_RATE_HZ * MAX_DURATION_S)
        if process.finish() != 0:
            raise ClipError("lse", "pipeline-failed", " ".join(error_lines(process.log)[-2:]))
    return data
