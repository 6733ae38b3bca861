"""Coding of crops and masks: what other programs read, colours in order, damage refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from syncdiff.pipeline.media.images import (
    decode_grey,
    decode_jpeg,
    decode_mask,
    encode_grey,
    encode_jpeg,
    encode_mask,
)


def picture(size=96):
    y, x = np.mgrid[:size, :size]
    channels = [x * 255 // size, y * 255 // size, (x + y) * 127 // size]
    return np.stack(channels, axis=2).astype(np.uint8)


def test_jpeg_keeps_colours_in_order():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 220
    back = decode_jpeg(encode_jpeg(red))
    np.testing.assert_allclose(back, red, atol=3)
    np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(encode_jpeg(red)))), red, atol=3)


def test_jpeg_is_near_the_picture_and_quality_counts():
    good, poor = encode_jpeg(picture()), encode_jpeg(picture(), quality=30)
    assert len(poor) < len(good)
    assert np.abs(decode_jpeg(good).astype(int) - picture()).mean() < 1.5


def test_jpeg_keeps_chroma_at_full_resolution():
    stripes = np.full((32, 32, 3), (150, 90, 90), np.uint8)
    stripes[:, ::2] = (190, 70, 80)  # lips and skin, one pixel each
    back = decode_jpeg(encode_jpeg(stripes)).astype(int)
    assert np.abs(back - stripes).max() < 16
    sampling = Image.open(io.BytesIO(encode_jpeg(stripes))).layer
    assert all(layer[1:3] == (1, 1) for layer in sampling)


def test_coding_is_deterministic():
    assert encode_jpeg(picture()) == encode_jpeg(picture().copy())
    mask = picture()[..., 0] > 100
    assert encode_mask(mask) == encode_mask(mask.copy())


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_masks_come_back_exactly(mask):
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


@given(st.integers(1, 70))
def test_masks_have_one_bit_for_a_pixel(size):
    mask = np.random.default_rng(size).random((size, size)) > 0.5
    with Image.open(io.BytesIO(encode_mask(mask))) as image:
        assert image.mode == "1"
        np.testing.assert_array_equal(np.asarray(image), mask)


def test_a_view_of_a_mask_is_coded_like_a_copy():
    mask = (picture()[..., 0] > 100)[::2, ::3]
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


def test_grey_pictures_come_back():
    grey = picture()[..., 2]
    back = decode_grey(encode_grey(grey))
    assert back.shape == grey.shape
    assert np.abs(back.astype(int) - grey).mean() < 1.5


@pytest.mark.parametrize("decode", [decode_jpeg, decode_grey, decode_mask])
@pytest.mark.parametrize("data", [b"", b"no picture", encode_jpeg(picture())[:20]])
def test_damaged_bytes_are_refused(decode, data):
    with pytest.raises(ValueError, match="decoded"):
        decode(data)


@pytest.mark.parametrize(
    ("encode", "wrong"),
    [
        (encode_jpeg, np.zeros((4, 4, 3), np.float32)),
        (encode_jpeg, np.zeros((4, 4), np.uint8)),
        (encode_grey, np.zeros((4, 4, 3), np.uint8)),
        (encode_mask, np.zeros((4, 4), np.uint8)),
    ],
)
def test_wrong_arrays_are_refused(encode, wrong):
    with pytest.raises(ValueError, match="expected"):
        encode(wrong)
