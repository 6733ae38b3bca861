from __future__ import annotations

from pathlib import Path

import cv2
import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from syncdiff.evaluate.metrics.image.lpips import Lpips, build_lpips, lpips_distances
from syncdiff.pipeline.records import U8, ClipError

from ...conftest import StillPair


@pytest.fixture(scope="module")
def random_backbone() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        0: (64, 3, 11, 11),
        3: (192, 64, 5, 5),
        6: (384, 192, 3, 3),
        8: (256, 384, 3, 3),
        10: (256, 256, 3, 3),
    }
    weights = {}
    for number, shape in shapes.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5
        weights[f"features.{number}.weight"] = torch.randn(shape, generator=generator) * scale
        weights[f"features.{number}.bias"] = torch.zeros(shape[0])
    return weights


@pytest.mark.parametrize(("picture", "published"), [("ex_p0.png", 0.722), ("ex_p1.png", 0.138)])
def test_published_figures_with_the_real_backbone(reference_weights: Path, picture: str, published: float):
    with np.load(reference_weights / "derived_alexnet_features_torch_layout.npz") as arrays:
        network = build_lpips({name: torch.from_numpy(array) for name, array in arrays.items()})
    folder = reference_weights / "lpips_ref_images"
    a, b = (
        cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB) for name in ("ex_ref.png", picture)
    )
    assert lpips_distances(network, a[None], b[None])[0] == pytest.approx(published, abs=5e-4)


def definition(alexnet: dict[str, torch.Tensor], linear: list[torch.Tensor], a: U8, b: U8) -> float:
    """LPIPS written down anew from the paper (equation 1) and AlexNet's layers, for pictures [H,W,3]."""

    def maps(picture: U8) -> list[torch.Tensor]:
        mean = torch.tensor([-0.030, -0.088, -0.188])  # ImageNet's, for values in -1..1, rounded as published
        deviation = torch.tensor([0.458, 0.448, 0.450])
        x = ((torch.from_numpy(picture).float() / 127.5 - 1 - mean) / deviation).permute(2, 0, 1)[None]
        outputs = []
        for number, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            if number in (3, 6):
                x = F.max_pool2d(x, 3, 2)
            kernel, bias = (alexnet[f"features.{number}.{part}"] for part in ("weight", "bias"))
            x = F.relu(F.conv2d(x, kernel, bias, stride, padding))
            outputs.append(x[0] / (x[0].square().sum(0).sqrt() + 1e-10))
        return outputs

    layers = zip(maps(a), maps(b), linear, strict=True)
    return sum(float(((x - y).square() * weight[0]).sum(0).mean()) for x, y, weight in layers)


def test_network_equals_the_definition(random_backbone: dict[str, torch.Tensor]):
    network = build_lpips(random_backbone)
    linear = [getattr(network, f"lin{i}").model[-1].weight.detach() for i in range(5)]
    rng = np.random.default_rng(2)
    a, b = (rng.integers(0, 256, (2, 96, 128, 3), dtype=np.uint8) for _ in range(2))
    wanted = [definition(random_backbone, linear, x, y) for x, y in zip(a, b, strict=True)]
    assert min(wanted) > 0.01
    np.testing.assert_allclose(lpips_distances(network, a, b), wanted, rtol=1e-4)


def test_whole_files_of_torchvision_are_read(random_backbone: dict[str, torch.Tensor]):
    network = build_lpips({**random_backbone, "classifier.1.weight": torch.zeros(3)})
    found = dict(network.net.named_parameters())
    assert len(found) == len(random_backbone) == 10
    assert torch.equal(found["slice4.8.weight"], random_backbone["features.8.weight"])


def test_another_networks_file_is_refused(random_backbone: dict[str, torch.Tensor]):
    del random_backbone["features.6.bias"]
    with pytest.raises(RuntimeError, match=r"slice3\.6\.bias"):
        build_lpips(random_backbone)


@pytest.fixture(scope="module")
def network() -> lpips.LPIPS:
    torch.manual_seed(0)
    return lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)


def test_metric_is_the_packages_mean_over_frames(network: lpips.LPIPS):
    rng = np.random.default_rng(0)
    made, true = (rng.integers(0, 256, (120, 160, 3), dtype=np.uint8) for _ in range(2))
    metric = Lpips(network, "frame", None)
    found = metric.score(metric.measure(StillPair(made, true, frames=11).pair))["lpips"]
    planes = [lpips.im2tensor(picture) for picture in (made, true)]  # the package's own conversion
    assert found == pytest.approx(network(*planes).item(), rel=1e-5)


@pytest.mark.parametrize("size_px", [None, 96])
def test_region_and_size(network: lpips.LPIPS, size_px: int | None):
    true = np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    corner = true.copy()
    corner[:10, :10] = 0
    for region, zero in (("frame", False), ("face", True)):
        metric = Lpips(network, region, size_px)
        assert metric.settings()["size_px"] == size_px
        assert (metric.score(metric.measure(StillPair(corner, true).pair))["lpips"] == 0) == zero


def test_too_small(network: lpips.LPIPS):
    picture = np.zeros((50, 50, 3), np.uint8)
    with pytest.raises(ClipError) as error:
        Lpips(network, "mouth", None).measure(StillPair(picture, picture).pair)
    assert error.value.reason == "region-too-small"
