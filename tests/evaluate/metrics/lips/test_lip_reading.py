from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncdiff.evaluate.clip_pair import ClipPair, Faces
from syncdiff.evaluate.metrics.lips.lip_reading import (
    LipScore,
    WordErrors,
    edit_distance,
    filled,
    mouths_of,
    normalise,
)
from syncdiff.pipeline.avhubert.beam_search import SearchConfig
from syncdiff.pipeline.avhubert.lip_reader import LipReader, load_lip_reader
from syncdiff.pipeline.avhubert.untrained import make_tiny_lip_reader
from syncdiff.pipeline.faces.align import mouth_rois
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, values_of

WORDS = st.lists(st.sampled_from("abc"), max_size=7)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> LipReader:
    path = make_tiny_lip_reader(tmp_path_factory.mktemp("reader") / "tiny.safetensors")
    return load_lip_reader(path, search=SearchConfig(beam=3))


def talking(seed: int, frames: int = 12) -> MovingFootage:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (frames, 160, 200, 3), dtype=np.uint8)
    return MovingFootage(rng.uniform(0, 0.5, frames), frames=list(pictures))


class FacelessFootage(MovingFootage):
    """A video in which the tracker finds nothing."""

    @property
    def speaker(self) -> Faces:
        raise ClipError("track", "no-face", "no face found")

    def face_like(self, other: Faces) -> Faces:
        raise ClipError("track", "other-face", "no face lies there")


def pair(made: MovingFootage, true: MovingFootage | None = None, said: str | None = None) -> ClipPair:
    return ClipPair("x", made, true, made, transcript=said)  # type: ignore[arg-type]


# --- word errors ----------------------------------------------------------------------------------


def test_edits_of_known_words() -> None:
    said = ["the", "cat", "sat", "on", "the", "mat"]
    assert edit_distance(said, said) == 0
    assert edit_distance(said, []) == edit_distance([], said) == 6
    assert edit_distance(said, ["the", "cat", "sat", "on", "mat"]) == 1
    assert edit_distance(said, ["a", "cat", "sat", "down", "on", "the", "mat"]) == 2
    assert edit_distance("kitten", "sitting") == 3


@given(WORDS, WORDS, WORDS)
def test_edits_are_a_distance(a: list[str], b: list[str], c: list[str]) -> None:
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, b) == edit_distance(b, a)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


@given(WORDS, WORDS)
def test_edits_are_those_of_the_definition(a: list[str], b: list[str]) -> None:
    def distance(m: int, n: int) -> int:
        if not m or not n:
            return m + n
        table = distances
        if (m, n) not in table:
            table[m, n] = min(
                distance(m - 1, n) + 1,
                distance(m, n - 1) + 1,
                distance(m - 1, n - 1) + (a[m - 1] != b[n - 1]),
            )
        return table[m, n]

    distances: dict[tuple[int, int], int] = {}
    assert edit_distance(a, b) == distance(len(a), len(b))


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert normalise("  It's well-known: 'so' they\u2019d say, 10%_of\nthem!") == (
        ["IT'S", "WELL", "KNOWN", "SO", "THEY'D", "SAY", "10", "OF", "THEM"]
    )
    assert normalise("... '' -") == []


def test_word_errors_of_a_clip_are_those_of_what_is_read(reader: LipReader) -> None:
    clip, metric = talking(0), WordErrors(reader)
    read = reader.read(mouth_rois(np.stack(list(clip.frames())), clip.faces.landmarks_px))
    assert values_of(metric, pair(clip, said=read.upper() + "!")) == {"wer": 0, "cer": 0}
    words = normalise(read)
    found = values_of(metric, pair(clip, said=" ".join([*words, "more"])))
    assert found["wer"] == pytest.approx(100 / (len(words) + 1))
    statistics = metric.measure(pair(clip, said="so be it"))
    assert str(statistics["read"]) == read
    assert not any(array.dtype.hasobject for array in statistics.values())


def test_a_set_is_all_its_words_together(reader: LipReader) -> None:
    counts = ("word_edits", "words", "character_edits", "characters")
    clips = [dict(zip(counts, map(np.array, row), strict=True)) for row in ((1, 2, 3, 10), (0, 8, 0, 30))]
    metric = WordErrors(reader)
    assert metric.score(clips[0]) == {"wer": 50, "cer": 30}
    assert metric.pool(clips) == {"wer": 10, "cer": 7.5}


def test_a_clip_without_a_face_misses_all_words(reader: LipReader) -> None:
    lost = FacelessFootage(np.zeros(12))
    assert values_of(WordErrors(reader), pair(lost, said="so be it")) == {"wer": 100, "cer": 100}


@pytest.mark.parametrize("said", [None, "", " ... "])
def test_without_transcript_there_is_no_value(reader: LipReader, said: str | None) -> None:
    with pytest.raises(ClipError) as error:
        WordErrors(reader).measure(pair(talking(0), said=said))
    assert error.value.reason == "no-transcript"


# --- similarity -----------------------------------------------------------------------------------


def test_a_copy_is_alike_and_another_clip_less(reader: LipReader) -> None:
    clip, metric = talking(0), LipScore(reader)
    assert values_of(metric, pair(clip, clip))["lipscore_avhubert"] == pytest.approx(1)
    noisy = talking(0)
    frames = np.random.default_rng(9).normal(np.stack(list(clip.frames())), 20)
    noisy._frames = list(np.clip(frames, 0, 255).astype(np.uint8))
    near, far = (values_of(metric, pair(one, clip))["lipscore_avhubert"] for one in (noisy, talking(1)))
    assert far < near < 1


def test_lost_faces_count_as_nothing_alike(reader: LipReader) -> None:
    clip, half, metric = talking(0), talking(0), LipScore(reader)
    present = np.arange(12) < 6
    half.faces = Faces(present, np.where(present[:, None, None], clip.faces.landmarks_px, np.nan))
    score = values_of(metric, pair(half, clip))["lipscore_avhubert"]
    whole = metric.measure(pair(half, clip))["per_frame"]
    assert (whole[6:] == 0).all()
    assert score == pytest.approx(whole[:6].sum() / 12)
    assert values_of(metric, pair(FacelessFootage(np.zeros(12)), clip)) == {"lipscore_avhubert": 0}
    half.faces = Faces(np.zeros(12, bool), np.full((12, 68, 2), np.nan, np.float32))
    assert values_of(metric, pair(half, clip)) == {"lipscore_avhubert": 0}
    half.faces = Faces(present, clip.faces.landmarks_px)
    only_there = metric.measure(pair(clip, half))["per_frame"]
    assert len(only_there) == 6


def test_landmarks_are_interpolated_where_the_face_is_lost() -> None:
    points = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((1, 68, 2), np.float32)
    present = np.array([False, True, False, True])
    faces = Faces(present, np.where(present[:, None, None], points, np.nan))
    assert filled(faces)[:, 0, 0] == pytest.approx([1, 1, 2, 3])
    clip = talking(0)
    whole = mouth_rois(np.stack(list(clip.frames())), clip.faces.landmarks_px)
    assert np.array_equal(mouths_of(clip.frames(), clip.faces), whole)


# --- what the report says ---------------------------------------------------------------------------


def test_the_checkpoint_is_named_and_untrained_weights_are_said(reader: LipReader) -> None:
    sha256 = reader.checkpoint.sha256
    about = {"lip_reader": "tiny.safetensors", "sha256": sha256, "untrained": True}
    assert LipScore(reader).settings() == about
    assert WordErrors(reader).settings() == about | {"beam": 3, "length_penalty": 1.0}
