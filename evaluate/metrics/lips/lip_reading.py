"""Can the lips be read? Word errors of a lip reader, and how alike it finds the lips of two clips.

    wer                word and character error rates (%) of what AV-HuBERT, fine-tuned to read lips, makes of
                       the generated clip, against what is said in it
    lipscore_avhubert  cosine of the lip reader's features of generated clip and reference

Word errors judge talking faces since Lahiri et al., "LipSync3D" (CVPR 2021). The second is after LipScore of
KeySync (Bigata et al. 2025, arXiv 2505.00497; `evaluation/lipscore.py`): the cosine of each frame's encoder
features, mean over frames, then clips. Its lip reader is that of auto_avsr, so its figures are on another
scale; those here compare under one checkpoint only, which the report names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair, Faces
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.sync.avs import cosines
from syncdiff.pipeline.avhubert.lip_reader import LipReader
from syncdiff.pipeline.faces.align import crop_mouths, mouth_matrices
from syncdiff.pipeline.records import F32, U8, ClipError

# Where a tracker says so of a generated clip, its lips are gone: all words missed, nothing alike.
NO_FACE = ("no-face", "track-too-short", "other-face")


class _LipReaderMetric(Metric):
    def __init__(self, reader: LipReader) -> None:
        self._reader = reader

    def settings(self) -> dict[str, Any]:
        checkpoint = self._reader.checkpoint
        about = {"lip_reader": checkpoint.name, "sha256": checkpoint.sha256}
        return about | ({"untrained": True} if checkpoint.untrained else {})


class WordErrors(_LipReaderMetric):
    """wer and cer. A set's is that of all its words together: edits over words, so long clips weigh more."""

    name = "wer"
    values = (Value("wer", "WER (lips)", "lower", "%", 1), Value("cer", "CER (lips)", "lower", "%", 1))
    needs_reference = False
    needs_transcript = True
    about = "Word and character errors of an AV-HuBERT that reads the generated lips"

    def settings(self) -> dict[str, Any]:
        search = self._reader.search
        return super().settings() | {"beam": search.beam, "length_penalty": search.length_penalty}

    def measure(self, pair: ClipPair) -> Statistics:
        words = normalise(pair.transcript or "")
        if not words:
            places = "the data set, and in a .txt beside the generated video, its sound or its reference"
            raise ClipError(self.name, "no-transcript", f"what is said is looked for in {places}")
        read = self._read(pair)
        characters, read_characters = " ".join(words), " ".join(normalise(read))
        return {
            "word_edits": np.array(edit_distance(words, normalise(read))),
            "words": np.array(len(words)),
            "character_edits": np.array(edit_distance(characters, read_characters)),
            "characters": np.array(len(characters)),
            "read": np.array(read),
        }

    def _read(self, pair: ClipPair) -> str:
        """Nothing where the generated clip has no face."""
        faces = _unless_lost(lambda: pair.generated.speaker)
        return "" if faces is None else self._reader.read(mouths_of(pair.generated.frames(), faces))

    def score(self, statistics: Statistics) -> dict[str, float]:
        return self.pool([statistics])

    def pool(self, clips: Iterable[Statistics]) -> dict[str, float]:
        counts = ("word_edits", "words", "character_edits", "characters")
        totals = np.sum([[clip[count] for count in counts] for clip in clips], axis=0)
        return {"wer": float(100 * totals[0] / totals[1]), "cer": float(100 * totals[2] / totals[3])}


class LipScore(_LipReaderMetric):
    """lipscore_avhubert. A frame without a face where the reference has one counts as 0."""

    name = "lipscore"
    values = (Value("lipscore_avhubert", "LipScore (AV-HuBERT)", "higher"),)
    about = "Are the lips alike to a lip reader? Cosine of its features, generated clip with reference"

    def measure(self, pair: ClipPair) -> Statistics:
        reference_faces = pair.reference_faces
        wanted = reference_faces.present
        if not wanted.any():
            raise ClipError(self.name, "no-face", "the reference has no face in the frames that are compared")
        faces = _unless_lost(lambda: pair.generated_faces)
        if faces is None:
            return {"per_frame": np.zeros(int(wanted.sum()))}
        generated = mouths_of((frame for frame, _ in pair.frames()), faces)
        reference = mouths_of((frame for _, frame in pair.frames()), reference_faces)
        alike = cosines(self._reader.features(generated), self._reader.features(reference))
        return {"per_frame": np.where(faces.present, alike, 0.0)[wanted]}

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {"lipscore_avhubert": float(np.mean(statistics["per_frame"]))}


def _unless_lost(find: Callable[[], Faces]) -> Faces | None:
    """The faces, None where there is none in any frame. Raises other ClipErrors."""
    try:
        faces = find()
    except ClipError as error:
        if error.reason in NO_FACE:
            return None
        raise
    return faces if faces.present.any() else None


def mouths_of(frames: Iterable[U8], faces: Faces) -> U8:
    """AV-HuBERT's mouth pictures [T,96,96] of a whole clip. Where the face is lost its landmarks are drawn
    between those before and after, as `landmarks_interpolate` in AV-HuBERT's `align_mouth.py` does."""
    matrices = mouth_matrices(filled(faces))
    return np.concatenate(list(_mouths(frames, matrices)))


def _mouths(frames: Iterable[U8], matrices: F32) -> Iterator[U8]:
    """One at a time: a long clip's whole pictures need not be in memory at once."""
    for frame, matrix in zip(frames, matrices, strict=False):
        yield crop_mouths(frame[None], matrix[None])


def filled(faces: Faces) -> F32:
    """Landmarks [T,68,2], absent ones interpolated over time, at the ends repeated."""
    times = np.arange(len(faces.present))
    points = faces.landmarks_px.reshape(len(times), -1)
    columns = [np.interp(times, times[faces.present], coordinate[faces.present]) for coordinate in points.T]
    return np.stack(columns, 1).reshape(-1, 68, 2).astype(np.float32)


def normalise(text: str) -> list[str]:
    """Words in capitals, without punctuation but for apostrophes within words, as LRS texts are written."""
    spoken = re.sub(r"[^\w'\s]|_", " ", text.upper().replace("\u2019", "'"))
    return [word for word in (part.strip("'") for part in spoken.split()) if word]


def edit_distance(reference: Sequence[Any], hypothesis: Sequence[Any]) -> int:
    """Fewest insertions, deletions and substitutions from one to the other (Levenshtein 1966)."""
    row = list(range(len(hypothesis) + 1))
    for index, wanted in enumerate(reference, 1):
        diagonal, row[0] = row[0], index
        for column, guessed in enumerate(hypothesis, 1):
            diagonal, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, diagonal + (wanted != guessed)),
            )
    return row[-1]
