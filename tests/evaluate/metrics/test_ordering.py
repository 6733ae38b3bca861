"""Do the metrics put results in the right order? Damaged clips of the sample play the methods.

LSE and AVS are not here: with stand-in weights their order means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from syncdiff.evaluate.clip_pair import ClipPair, Footage
from syncdiff.evaluate.metrics.base import Metric
from syncdiff.evaluate.metrics.distribution.fid import Fid, build_inception
from syncdiff.evaluate.metrics.identity.csim import DlibEmbedder, Identity
from syncdiff.evaluate.metrics.image.lpips import Lpips, build_lpips
from syncdiff.evaluate.metrics.image.psnr_ssim import (
    Psnr,
    PsnrFace,
    PsnrMouth,
    Ssim,
    SsimFace,
    SsimMouth,
    TalkLip,
)
from syncdiff.evaluate.metrics.image.sharpness import Sharpness
from syncdiff.evaluate.metrics.image.temporal_stability import Stability
from syncdiff.evaluate.metrics.lips.lmd import LandmarkDistance
from syncdiff.evaluate.metrics.sync.av_correlation import AvCorrelation
from syncdiff.pipeline.faces.dlib import DlibBackend

from . import degrade

PICTURE_METRICS = (Psnr, PsnrFace, PsnrMouth, Ssim, SsimFace, SsimMouth, TalkLip)
Score = Callable[[Path, Metric], dict[str, float]]


@pytest.fixture(scope="module")
def backend() -> DlibBackend:
    return DlibBackend()


@pytest.fixture(scope="module")
def speakers(sample_raw: Path) -> tuple[Path, Path]:
    """A clip of each of the sample's two people, in which sound and lips agree."""
    clips = sample_raw / "mvlrs_v1" / "main"
    return clips / "astronaut" / "20001.mp4", clips / "carphone" / "20001.mp4"


@pytest.fixture(scope="module")
def clip(speakers: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return degrade.shorten(speakers[0], tmp_path_factory.mktemp("clip") / "true.mov", seconds=2, width=256)


@pytest.fixture(scope="module")
def score(clip: Path, backend: DlibBackend) -> Score:
    """score(made, metric): values of a clip against the true one. Footage is shared between calls."""
    footage: dict[Path, Footage] = {}

    def of(path: Path) -> Footage:
        return footage.setdefault(path, Footage(path, lambda: backend))

    def score(made: Path, metric: Metric) -> dict[str, float]:
        return metric.score(metric.measure(ClipPair("clip", of(made), of(clip), of(made))))

    return score


@pytest.fixture(scope="module")
def methods(clip: Path, speakers: tuple[Path, Path], backend: DlibBackend) -> dict[str, list[Path]]:
    """Each kind of damage, from none to much."""
    folder = clip.parent
    other = degrade.shorten(speakers[1], folder / "other.mov", seconds=2, width=256)
    return {
        "blur": [clip, *(degrade.blurred(clip, folder / f"blur{s}.mov", s) for s in (0.7, 1.5, 3))],
        "jpeg": [clip, *(degrade.as_jpeg(clip, folder / f"jpeg{q}.avi", q) for q in (3, 10, 31))],
        "drops": [clip, *(degrade.dropped(clip, folder / f"drop{n}.mov", n) for n in (10, 5, 2))],
        "mouth": [clip, degrade.foreign_mouth(clip, other, folder / "mouth.mov", backend)],
    }


def ordered(values: list[float], better: str) -> bool:
    return all(a > b if better == "higher" else a < b for a, b in pairwise(values))


@pytest.mark.parametrize("damage", ["blur", "jpeg", "drops", "mouth"])
@pytest.mark.parametrize("kind", PICTURE_METRICS)
def test_picture_quality(kind: type[Metric], damage: str, methods: dict[str, list[Path]], score: Score):
    metric = kind()
    scores = [score(path, metric) for path in methods[damage]]
    for value in metric.values:
        if value.better != "none":
            assert ordered([one[value.name] for one in scores], value.better), value.name


@pytest.mark.parametrize("damage", ["blur", "jpeg", "drops", "mouth"])
def test_lpips(damage: str, methods: dict[str, list[Path]], score: Score, reference_weights: Path):
    with np.load(reference_weights / "derived_alexnet_features_torch_layout.npz") as arrays:
        network = build_lpips({name: torch.from_numpy(array) for name, array in arrays.items()})
    metric = Lpips(network, "face", 128)
    assert ordered([score(path, metric)["lpips"] for path in methods[damage]], "lower")


@pytest.mark.parametrize("damage", ["blur", "jpeg"])
def test_sharpness(damage: str, methods: dict[str, list[Path]], score: Score):
    scores = [score(path, Sharpness()) for path in methods[damage]]
    if damage == "blur":
        for name in ("sharpness_face", "sharpness_mouth", "cpbd"):
            assert ordered([one[name] for one in scores], "higher"), name
    else:  # blocks of JPEG make edges of their own: only the strongest loss of detail is sure to show
        assert scores[0]["sharpness_face"] > scores[-1]["sharpness_face"]


def test_landmarks_and_identity_see_a_foreign_mouth(methods: dict[str, list[Path]], score: Score):
    mild = methods["jpeg"][1]
    for metric, name, better in (
        (LandmarkDistance(256), "lmd", "lower"),
        (LandmarkDistance(256), "lmd_relative", "lower"),
        (Identity(DlibEmbedder()), "csim", "higher"),
    ):
        values = [score(path, metric)[name] for path in (methods["mouth"][0], mild, methods["mouth"][1])]
        assert ordered(values, better), (name, values)


@pytest.mark.parametrize("damage", ["drops", "mouth"])
def test_stability(damage: str, methods: dict[str, list[Path]], score: Score):
    scores = [score(path, Stability()) for path in methods[damage]]
    assert ordered([one["flicker_mouth"] for one in scores], "lower")
    if damage == "mouth":  # outside the face there is only the codec's error, and the edge of what was pasted
        assert scores[1]["flicker_static"] < scores[1]["flicker_mouth"] / 2


def test_sound_moves_the_lag_and_nothing_else(
    speakers: tuple[Path, Path], tmp_path: Path, backend: DlibBackend
):
    true = degrade.shorten(speakers[0], tmp_path / "true.mov", seconds=8, width=224)
    lags = []
    for frames in (0, 2, 5, 10):
        path = degrade.late_sound(true, tmp_path / f"late{frames}.mov", frames)
        made, metric = Footage(path, lambda: backend), AvCorrelation()
        lags.append(metric.score(metric.measure(ClipPair("clip", made, None, made)))["av_lag"])
        if frames == 10:
            pair = ClipPair("clip", made, Footage(true, lambda: backend), made)
            assert Psnr().score(Psnr().measure(pair))["psnr"] == 100
    assert [lag - lags[0] for lag in lags] == [0, 2, 5, 10]


def test_a_foreign_mouth_correlates_less(speakers: tuple[Path, Path], tmp_path: Path, backend: DlibBackend):
    true = degrade.shorten(speakers[0], tmp_path / "true.mov", seconds=6, width=224)
    other = degrade.shorten(speakers[1], tmp_path / "other.mov", seconds=6, width=224)
    made = degrade.foreign_mouth(true, other, tmp_path / "made.mov", backend)
    metric = AvCorrelation()
    own, foreign = (
        metric.score(metric.measure(ClipPair("clip", clip, None, clip)))["av_correlation"]
        for clip in (Footage(true, lambda: backend), Footage(made, lambda: backend))
    )
    assert foreign < own - 0.2


@pytest.mark.long
@pytest.mark.parametrize("damage", ["blur", "jpeg"])
def test_fid(
    damage: str,
    methods: dict[str, list[Path]],
    backend: DlibBackend,
    clip: Path,
    inception_weights: dict[str, torch.Tensor],
):
    """Even random Inception features tell how much a picture was damaged."""
    metric = Fid(build_inception(inception_weights), "face")
    true = Footage(clip, lambda: backend)
    values = []
    for path in methods[damage]:
        made = Footage(path, lambda: backend)
        values.append(metric.pool([metric.measure(ClipPair("clip", made, true, made))])["fid"])
    assert ordered(values, "lower")
