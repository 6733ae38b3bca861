from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from syncdiff.evaluate.clip_pair import ClipPair, Faces
from syncdiff.evaluate.metrics.base import Metric
from syncdiff.evaluate.metrics.sync.avs import AvHubert, AvsPaired, AvsUnpaired, cosines
from syncdiff.pipeline.avhubert.extractor import load_avhubert
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.faces.align import mouth_rois
from syncdiff.pipeline.features.extractor import ExtractorInput
from syncdiff.pipeline.records import CheckpointError, ClipError

from ...conftest import MovingFootage, pair_of


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("avhubert") / "tiny.safetensors")


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> AvHubert:
    return AvHubert(checkpoint, "cpu")


def talking(seed: int, frames: int = 30) -> MovingFootage:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (frames, 160, 200, 3), dtype=np.uint8)
    sound = rng.normal(0, 3000, frames * 640).astype(np.int16)
    return MovingFootage(rng.uniform(0, 0.5, frames), sound, frames=list(pictures))


def values(metric: Metric, pair: ClipPair) -> dict[str, float]:
    return metric.score(metric.measure(pair))


def test_values_are_cosines_of_the_extractors_features(encoder: AvHubert, checkpoint: Path):
    made, true = talking(0), talking(1)
    features = {}
    for name, clip in (("made", made), ("true", true)):
        mouths = mouth_rois(np.stack(list(clip.frames())), clip.faces.landmarks_px)
        for modality in ("audio", "video", "both"):
            given = ExtractorInput(made.sound, 30, mouths)
            features[name, modality] = load_avhubert(checkpoint, modality)([given])[0].values
    pair = ClipPair("x", made, true, made)
    found = values(AvsUnpaired(encoder), pair) | values(AvsPaired(encoder), pair)
    expected = {
        "avs_u": cosines(features["made", "audio"], features["made", "video"]).mean(),
        "avs_m": cosines(features["made", "both"], features["true", "both"]).mean(),
        "avs_v": cosines(features["made", "video"], features["true", "video"]).mean(),
    }
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_clip_with_itself(encoder: AvHubert):
    clip = talking(0)
    assert values(AvsPaired(encoder), pair_of(clip, clip)) == pytest.approx({"avs_m": 1, "avs_v": 1})


def test_unpaired_needs_no_reference(encoder: AvHubert):
    assert -1 <= values(AvsUnpaired(encoder), pair_of(talking(0)))["avs_u"] <= 1
    assert not AvsUnpaired.needs_reference


def test_only_the_stretch_with_a_face_counts(encoder: AvHubert):
    clip, part = talking(0), talking(0)
    present = np.arange(30) >= 10
    part.faces = Faces(present, np.where(present[:, None, None], clip.faces.landmarks_px, np.nan))
    later = Faces(present[10:], clip.faces.landmarks_px[10:])
    frames, sound = list(clip.frames())[10:], clip.sound[10 * 640 :]
    cut = MovingFootage(clip.opening[10:], sound, frames=frames, faces=later)
    found, expected = (values(AvsUnpaired(encoder), pair_of(one))["avs_u"] for one in (part, cut))
    assert found == pytest.approx(expected, abs=1e-6)


def test_no_face_long_enough(encoder: AvHubert):
    clip = talking(0)
    clip.faces = Faces(np.arange(30) < 4, clip.faces.landmarks_px)
    with pytest.raises(ClipError) as error:
        AvsUnpaired(encoder).measure(pair_of(clip))
    assert (error.value.stage, error.value.reason) == ("avs_u", "no-face")


def test_sound_that_ends_before_the_face(encoder: AvHubert):
    clip = talking(0)
    clip.faces = Faces(np.arange(30) >= 20, clip.faces.landmarks_px)
    quiet = MovingFootage(clip.opening, clip.sound[: 10 * 640])
    with pytest.raises(ClipError) as error:
        AvsUnpaired(encoder).measure(ClipPair("x", clip, None, quiet))
    assert error.value.reason == "no-sound"


def test_checkpoint_without_lips_is_refused(golden: Path):
    with pytest.raises(CheckpointError, match="video"):
        AvHubert(golden / "avhubert" / "tiny_pretrained_plain_cfg.pt", "cpu")


def test_untrained_weights_are_named(encoder: AvHubert):
    assert AvsPaired(encoder).settings() == {
        "checkpoint": "tiny.safetensors",
        "layer": "final",
        "untrained": True,
    }
