"""Videos with boxes, landmarks or their own alignment for TalkLip, LatentSync, MuseTalk and KeySync.

Facts from `train.py` and `preparation/` of Sxjdwang/TalkLip (7ed53ee), `latentsync/utils/` and
`latentsync/data/` of bytedance/LatentSync (a229c39, its 68 points from bf00e09), `scripts/preprocess.py` and
`musetalk/data/dataset.py` of TMElyralab/MuseTalk (0a89dec), `sgm/data/video_dataset_latent.py` of
antonibigata/keysync (cfff7cf).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save as safetensors_bytes

from syncdiff.pipeline.export.base import (
    Content,
    ExportCounts,
    LeftOutError,
    OnClip,
    Pictures,
    export_clips,
    fairseq_split,
    features_of,
    flat_name,
    folder_name,
    npy_bytes,
    pictures_of,
    transcript_of,
    wav_bytes,
    write_split_lists,
)
from syncdiff.pipeline.media.write import PLAYABLE, write_video
from syncdiff.pipeline.records import F32, U8
from syncdiff.pipeline.store.read import ClipView, Dataset

LATENTSYNC_TEMPLATE = ((17.0, 20.0), (58.0, 20.0), (37.5, 40.0))  # brows and nose, in units of 75 x 100
LATENTSYNC_POINTS = ((17, 22), (22, 27), (27, 36))  # of the 68 points
LATENTSYNC_UNIT = 2.8 / 256  # pixels a unit and pixel of resolution
LATENTSYNC_FILL = (127, 127, 127)
LATENTSYNC_SHORTEST_FRAMES = 48  # three times their 16 frames: their loader passes over a shorter clip
MUSETALK_SHORTEST_FRAMES = 10  # ten times their T of 1


def export_talklip(
    dataset: Dataset, out: Path, raw: Path | None = None, on_clip: OnClip = lambda clip: None
) -> ExportCounts:
    """`{video/*.mp4,audio/*.wav,bbx/*.npy,text/*.txt}` and `filelist/<split>.txt`; boxes are int64 [T,4].

    The pictures are whole frames with `raw` (TalkLip's own case: LRS2's 160x160, whose middle 88 pixels its
    AV-HuBERT sees), else the stored crops. Boxes are held inside the picture, as its cropping demands. Rows
    without sound or transcript are left out.
    """

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        name, pictures = folder_name(clip.clip_id), pictures_of(clip, raw)
        # `Text:  ` has the seven characters that their loader cuts off
        text = f"Text:  {transcript_of(clip).upper()}\n"
        return {
            out / "video" / f"{name}.mp4": partial(_write_frames, pictures),
            out / "audio" / f"{name}.wav": wav_bytes(clip),
            out / "bbx" / f"{name}.npy": npy_bytes(_whole_boxes(pictures)),
            out / "text" / f"{name}.txt": text.encode(),
        }

    counts, clips = export_clips(dataset, files_of, on_clip)
    write_split_lists(
        clips,
        lambda split: out / "filelist" / f"{split}.txt",
        lambda clip: folder_name(clip.clip_id),
        split_of=fairseq_split,
    )
    return counts


def export_latentsync(
    dataset: Dataset,
    out: Path,
    raw: Path | None = None,
    size_px: int = 256,
    on_clip: OnClip = lambda clip: None,
) -> ExportCounts:
    """`videos/*.mp4` of `size_px` with sound, in LatentSync's alignment, and `<split>.txt` with their paths.

    Base names are unique, because LatentSync keys its cache of spectra by them. From the stored crops (no
    `raw`) what their alignment shows beyond the crop is grey, as it is beyond a picture's edge. Rows without
    sound or with fewer than 48 frames are left out.
    """
    out = out.absolute()

    def place(clip: ClipView) -> Path:
        return out / "videos" / f"{flat_name(clip.clip_id)}.mp4"

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        if clip.num_frames < LATENTSYNC_SHORTEST_FRAMES:
            raise LeftOutError(f"fewer than {LATENTSYNC_SHORTEST_FRAMES} frames")
        if clip.value("audio_flac") is None:
            raise LeftOutError("no sound")
        return {place(clip): partial(_write_latentsync, clip, raw, size_px)}

    counts, clips = export_clips(dataset, files_of, on_clip)
    write_split_lists(clips, lambda split: out / f"{split}.txt", lambda clip: str(place(clip)))
    return counts


def _write_latentsync(clip: ClipView, raw: Path | None, size_px: int, path: Path) -> None:
    pictures = pictures_of(clip, raw)
    faces = latentsync_faces(pictures.frames, pictures.landmarks_px, size_px)
    write_video(path, faces, clip.audio(), PLAYABLE)


def latentsync_faces(frames: Iterator[U8], landmarks_px: F32, size_px: int) -> Iterator[U8]:
    """Frames [H,W,3] with landmarks [T,68,2] to LatentSync's faces [size,size,3].

    `AlignRestore` and `ImageProcessor.affine_transform`: three points (the brows' and the nose's mean, whole
    numbers) by a similarity without reflection onto the template, scaled by the standard deviation of all
    coordinates; the shift carries the nose's remaining offset, smoothed with the frame before (0.2 and 0.8);
    the 75 x 100 units then fill the square.
    """
    template = np.array(LATENTSYNC_TEMPLATE) * LATENTSYNC_UNIT * size_px
    canvas = round(75 * LATENTSYNC_UNIT * size_px), round(100 * LATENTSYNC_UNIT * size_px)
    middle = template.mean(axis=0)
    size = (template - middle).std(ddof=1)
    target = (template - middle) / size
    offset: F32 | None = None
    for frame, points in zip(frames, landmarks_px.astype(np.float64), strict=True):
        three = np.round([points[a:b].mean(axis=0) for a, b in LATENTSYNC_POINTS])
        centred = three - three.mean(axis=0)
        spread = centred.std(ddof=1)
        normed = centred / spread
        left, _, right = np.linalg.svd(normed.T @ target)
        turn = right.T @ np.diag([1.0, np.sign(np.linalg.det(right.T @ left.T))]) @ left.T
        linear = size / spread * turn
        rest = target[2] - normed[2]
        offset = rest if offset is None else offset * 0.2 + rest * 0.8
        shift = middle - linear @ three.mean(axis=0) + offset
        face = cv2.warpAffine(
            frame, np.column_stack([linear, shift]), canvas, flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=LATENTSYNC_FILL,
        )  # fmt: skip
        yield np.asarray(cv2.resize(face, (size_px, size_px), interpolation=cv2.INTER_LANCZOS4))


def export_musetalk(
    dataset: Dataset, out: Path, raw: Path | None = None, on_clip: OnClip = lambda clip: None
) -> ExportCounts:
    """`clips/*.{mp4,wav}`, `meta/*.json` and `<split>.txt`, as MuseTalk 1.5's FaceDataset reads them.

    A meta file has mp4_path, wav_path, video_size and face_size (height, width), frames, face_list [T][4],
    landmark_list [T][68][2] and isvalid (whether every frame was detected). The lists have a header line,
    which the loader skips. Rows without sound or with fewer than ten frames are left out.
    """
    out = out.absolute()

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        if clip.num_frames < MUSETALK_SHORTEST_FRAMES:
            raise LeftOutError(f"fewer than {MUSETALK_SHORTEST_FRAMES} frames")
        name, pictures = flat_name(clip.clip_id), pictures_of(clip, raw)
        video, wav = out / "clips" / f"{name}.mp4", out / "clips" / f"{name}.wav"
        boxes = _whole_boxes(pictures)
        meta = {
            "mp4_path": str(video),
            "wav_path": str(wav),
            # H.264 has even sides: an odd one grows by a pixel
            "video_size": [
                pictures.height_px + pictures.height_px % 2,
                pictures.width_px + pictures.width_px % 2,
            ],
            "face_size": [int(boxes[0, 3] - boxes[0, 1]), int(boxes[0, 2] - boxes[0, 0])],
            "frames": clip.num_frames,
            "face_list": boxes.tolist(),
            "landmark_list": np.round(pictures.landmarks_px, 2).astype(float).tolist(),
            "isvalid": bool(clip.column("detected").all()),
        }
        return {
            video: partial(_write_frames, pictures, clip=clip),
            wav: wav_bytes(clip),
            out / "meta" / f"{name}.json": json.dumps(meta).encode(),
        }

    counts, clips = export_clips(dataset, files_of, on_clip)
    write_split_lists(
        clips,
        lambda split: out / f"{split}.txt",
        lambda clip: f"{flat_name(clip.clip_id)}.json",
        header="meta",
    )
    return counts


def export_keysync(
    dataset: Dataset,
    out: Path,
    raw: Path | None = None,
    features: Mapping[str, str] | None = None,
    on_clip: OnClip = lambda clip: None,
) -> ExportCounts:
    """`videos/*.mp4`, `audios/*.wav`, `landmarks/*.npy` [T,68,2], `audios_emb/`, `<split>.txt` of videos.

    features: KeySync's name of a kind of sound embedding (wavlm, hubert) to our features at 25 steps a
    second, written as `audios_emb/<clip>_<kind>_emb.safetensors` with a tensor `audio` [T,D]. KeySync's own
    are of WavLM and HuBERT; others are not what its released weights know. Rows without sound are left out.
    """
    out = out.absolute()

    def place(clip: ClipView) -> Path:
        # The loader cuts a name at its first dot to find the embedding
        name = flat_name(clip.clip_id).replace(".", "%2E")
        return out / "videos" / f"{name}.mp4"

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        name, pictures = place(clip).stem, pictures_of(clip, raw)
        files: dict[Path, Content] = {
            place(clip): partial(_write_frames, pictures),
            out / "audios" / f"{name}.wav": wav_bytes(clip),
            out / "landmarks" / f"{name}.npy": npy_bytes(pictures.landmarks_px),
        }
        for kind, extractor_id in (features or {}).items():
            values = features_of(clip, extractor_id)
            if len(values) != clip.num_frames:
                raise ValueError(f"{extractor_id} has {len(values)} steps for {clip.num_frames} frames")
            path = out / "audios_emb" / f"{name}_{kind}_emb.safetensors"
            files[path] = safetensors_bytes({"audio": np.ascontiguousarray(values)})
        return files

    counts, clips = export_clips(dataset, files_of, on_clip)
    write_split_lists(clips, lambda split: out / f"{split}.txt", lambda clip: str(place(clip)))
    return counts


def _whole_boxes(pictures: Pictures) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Boxes in whole pixels inside the picture, at least one pixel wide and high."""
    limit = np.array([pictures.width_px, pictures.height_px])
    low = np.clip(np.floor(pictures.boxes_px[:, :2]), 0, limit - 1)
    high = np.clip(np.ceil(pictures.boxes_px[:, 2:]), low + 1, limit)
    return np.concatenate([low, high], axis=1).astype(np.int64)


def _write_frames(pictures: Pictures, path: Path, clip: ClipView | None = None) -> None:
    """The pictures as an mp4, with the sound of `clip` where that is given."""
    write_video(path, pictures.frames, None if clip is None else clip.audio(), PLAYABLE)
