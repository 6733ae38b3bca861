from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from syncdiff.evaluate.metrics.image.psnr_ssim import (
    MAX_PSNR_DB,
    Psnr,
    PsnrFace,
    PsnrMouth,
    Ssim,
    SsimFace,
    SsimMouth,
    TalkLip,
    psnr_db,
    psnr_db_uint8,
    ssim,
)
from syncdiff.pipeline.records import ClipError

from ...conftest import StillPair


def picture(height: int, width: int, seed: int, blur: float = 1.5) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), blur)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(11, 90), width=st.integers(11, 90), seed=st.integers(0, 1000))
def test_equal_to_scikit_image(height: int, width: int, seed: int):
    a, b = picture(height, width, seed), picture(height, width, seed + 1, 3.0)
    theirs = structural_similarity(
        a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim(a, b) == pytest.approx(theirs, abs=1e-9)
    assert psnr_db(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9)


def test_equal_pictures():
    a = picture(40, 30, 0)
    assert ssim(a, a) == 1.0
    assert psnr_db(a, a) == psnr_db_uint8(a, a) == MAX_PSNR_DB


def test_smaller_than_the_window():
    with pytest.raises(ClipError, match="region-too-small"):
        ssim(picture(10, 40, 0), picture(10, 40, 1))


def talklips_psnr(original: np.ndarray, compressed: np.ndarray) -> float:
    """Its arithmetic in one line: unsigned bytes throughout, then the mean."""
    return 20 * np.log10(255 / np.sqrt(np.mean((original - compressed) ** 2)))


def test_wrap_around_is_that_of_talklip_and_flatters():
    a = picture(96, 96, 0)
    b = np.clip(a + np.random.default_rng(1).normal(0, 15.4, a.shape), 0, 255).round().astype(np.uint8)
    assert psnr_db_uint8(a, b) == pytest.approx(talklips_psnr(a, b), abs=1e-9)
    assert 24 < psnr_db(a, b) < 25
    assert psnr_db_uint8(a, b) > psnr_db(a, b) + 3


def test_regions_look_where_they_say():
    """Damage in the mouth is seen by all, damage in a corner by the full frame alone."""
    true = picture(120, 160, 0)
    mouth, corner = true.copy(), true.copy()
    pair = StillPair(true, true)
    x, y = pair.mouth_centre_px
    mouth[y - 5 : y + 5, x - 5 : x + 5] = 0
    corner[:10, :10] = 0
    for metric, equal in [
        (Psnr, 100),
        (PsnrFace, 100),
        (PsnrMouth, 100),
        (Ssim, 1),
        (SsimFace, 1),
        (SsimMouth, 1),
    ]:
        assert value(metric(), StillPair(mouth, true)) < equal
        assert (value(metric(), StillPair(corner, true)) < equal) == (metric.region == "frame")


def value(metric, pair) -> float:
    return metric.score(metric.measure(pair.pair))[metric.name]


def test_talklip_crops_by_the_references_box_and_weighs_frames():
    true, made = picture(120, 160, 0), picture(120, 160, 1)
    metric = TalkLip()
    pair = StillPair(made, true, frames=3)
    x0, y0, x1, y1 = pair.face_box_px
    a, b = (cv2.resize(one[y0:y1, x0:x1], (96, 96)) for one in (made, true))
    statistics = metric.measure(pair.pair)
    found = metric.score(statistics)
    assert found["psnr_talklip"] == pytest.approx(peak_signal_noise_ratio(b, a))
    assert found["psnr_talklip_uint8"] == pytest.approx(talklips_psnr(b, a))
    assert found["ssim_talklip"] == pytest.approx(ssim(a, b))
    perfect = metric.measure(StillPair(true, true, frames=1).pair)
    together = metric.pool([statistics, perfect])
    assert together["psnr_talklip"] == pytest.approx((3 * found["psnr_talklip"] + MAX_PSNR_DB) / 4)


def test_no_face_in_the_reference():
    true = picture(120, 160, 0)
    pair = StillPair(true, true, face=False)
    assert value(Psnr(), pair) == MAX_PSNR_DB
    with pytest.raises(ClipError) as error:
        PsnrFace().measure(pair.pair)
    assert error.value.reason == "no-face"
