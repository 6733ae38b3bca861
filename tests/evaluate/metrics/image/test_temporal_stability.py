from __future__ import annotations

import numpy as np
import pytest

from syncdiff.evaluate.metrics.image.temporal_stability import Stability
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, pair_of, values_of


def test_stability_closed_form():
    """White noise of 4 grey levels in each frame: the frame difference has twice the variance."""
    rng = np.random.default_rng(0)
    still = np.full((160, 200, 3), 128, np.uint8)
    greys = rng.normal(128, 4, (12, 160, 200, 1)).round().repeat(3, axis=3)
    true = MovingFootage(np.zeros(12), frames=[still] * 12)
    made = MovingFootage(np.zeros(12), frames=list(greys.astype(np.uint8)))
    found = values_of(Stability(), pair_of(made, true))
    assert found["flicker_mouth"] == pytest.approx(np.sqrt(2 * 16 + 2 / 12), rel=0.03)
    assert found["flicker_static"] == pytest.approx(found["flicker_mouth"], rel=0.03)
    assert found["motion_mouth"] > 20
    assert values_of(Stability(), pair_of(true, true)) == {
        "flicker_mouth": 0,
        "flicker_static": 0,
        "motion_mouth": 0,
    }
    assert values_of(Stability(), pair_of(true, made))["motion_mouth"] == pytest.approx(
        -found["motion_mouth"]
    )


def test_stability_where_the_face_fills_the_picture():
    true = MovingFootage(np.zeros(5), face_share=1.2)
    with pytest.raises(ClipError) as error:
        Stability().measure(pair_of(true, true))
    assert error.value.reason == "no-static-region"
