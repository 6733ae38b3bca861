from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from syncdiff.evaluate.metrics.identity.arcface import OnnxEmbedder
from syncdiff.evaluate.metrics.identity.csim import ARCFACE_POINTS_PX, Identity
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, pair_of, values_of


def write_network(path: Path, *, own_normalisation: bool = False, side: int = 112, channels: int = 3) -> Path:
    """A network that answers each colour's mean; with its own normalisation it takes 127.5 off first."""
    taken = helper.make_tensor("taken", TensorProto.FLOAT, [], [127.5])
    share = helper.make_tensor("share", TensorProto.FLOAT, [], [1 / 127.5])
    nodes = [helper.make_node("ReduceMean", ["scaled" if own_normalisation else "pixels", "axes"], ["mean"])]
    if own_normalisation:
        nodes = [
            helper.make_node("Sub", ["pixels", "taken"], ["centred"]),
            helper.make_node("Mul", ["centred", "share"], ["scaled"]),
            *nodes,
        ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", channels, side, side])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n", channels, 1, 1])],
        [taken, share, axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("own_normalisation", [False, True])
def test_pixels_are_rgb_from_minus_one_to_one(tmp_path: Path, own_normalisation: bool) -> None:
    embedder = OnnxEmbedder(write_network(tmp_path / "a.onnx", own_normalisation=own_normalisation))
    picture = np.full((160, 200, 3), (0, 127, 255), np.uint8)
    clip = MovingFootage(np.full(6, 0.1), frames=[picture] * 6)
    embedding = embedder.embed(picture, clip.faces.landmarks_px[0])
    assert embedding == pytest.approx([-1, -0.5 / 127.5, 1], abs=1e-5)
    assert values_of(Identity(embedder), pair_of(clip, clip))["csim"] == pytest.approx(1)
    assert embedder.name.startswith("a.onnx sha256:")


def test_the_five_points_come_to_arcfaces_places(tmp_path: Path) -> None:
    """A white spot on each point of a face is found where insightface's template has that point."""
    places = 1.25 * np.array(ARCFACE_POINTS_PX) + (20, 15)
    landmarks = np.zeros((68, 2), np.float32)
    for points, place in zip((slice(36, 42), slice(42, 48), 30, 48, 54), places, strict=True):
        landmarks[points] = place
    embedder = OnnxEmbedder(write_network(tmp_path / "a.onnx"))
    for (x, y), wanted in zip(places, ARCFACE_POINTS_PX, strict=True):
        picture = np.zeros((180, 220, 3), np.uint8)
        picture[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 255
        rows, columns = np.nonzero(embedder.pixels(picture, landmarks)[0, 0] > 0)
        assert np.hypot(columns.mean() - wanted[0], rows.mean() - wanted[1]) < 1


def test_a_network_of_another_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="expected one input"):
        OnnxEmbedder(write_network(tmp_path / "small.onnx", side=96))
