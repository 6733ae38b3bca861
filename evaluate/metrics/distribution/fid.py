"""FID: Fréchet distance of the Inception features of all generated and all reference frames.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (2017), eq.
6, with the network of pytorch-fid (mseitzer/pytorch-fid), whose command gives the same value for the same
pictures. As that program does, it takes every picture of both sides at its own size, and the network scales
it to 299x299: a generated clip of another size than its reference is not brought to that first. Papers seldom
say which crop they took; a report names the region, which lies where the reference's face is, in each side's
own pixels.

It is a value of a set: clips have none. Few frames overestimate it, so only sets of the same size compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.regions import Region, own_crops
from syncdiff.evaluate.reference_features import ReferenceFeatures
from syncdiff.pipeline.records import F32, U8, ClipError

F64 = NDArray[np.float64]
BATCH = 8
INPUT_PX = 299
FEATURES = 2048


class Fid(Metric):
    name = "fid"
    values = (Value("fid", "FID", "lower", "", 2),)
    weights = ("inception",)
    per_clip = False
    version = 2

    def __init__(self, network: nn.Module, region: Region, kept: ReferenceFeatures | None = None) -> None:
        self._network = network
        self._region: Region = region
        self._kept = kept or ReferenceFeatures()

    def settings(self) -> dict[str, Any]:
        return {"region": self._region, "resize": f"{INPUT_PX}x{INPUT_PX} bilinear, by the network"}

    def measure(self, pair: ClipPair) -> Statistics:
        own, references = own_crops(pair, self._region)
        generated = inception_features(self._network, own)
        reference = self._kept.of(
            ((picture,) for picture in references),
            lambda items: inception_features(self._network, (picture for (picture,) in items)),
        )
        if not min(len(generated), len(reference)):
            raise ClipError(self.name, "no-frames", "there is no frame to compare")
        return {"generated": generated, "reference": reference}

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {}

    def pool(self, clips: Iterable[Statistics]) -> dict[str, float]:
        """Raises ClipError("fid", "too-few-frames") for fewer than two."""
        # clip by clip, since the features of a test set do not fit into memory
        both = ((Moments.of(clip["generated"]), Moments.of(clip["reference"])) for clip in clips)
        generated, reference = reduce(lambda total, clip: (total[0] + clip[0], total[1] + clip[1]), both)
        return {"fid": frechet_distance(generated, reference)}


@dataclass(frozen=True)
class Moments:
    """Count, mean and spread of a set of vectors; sums of them are those of the joined sets.

    mean [D]; root [r,D] with root.T @ root = sum of outer products about the mean. The root is exact where
    the covariance is singular, and has few rows where there are few vectors.
    """

    count: int
    mean: F64
    root: F64

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Moments:
        """Of vectors [n,D], n > 0."""
        exact = vectors.astype(np.float64)
        mean = exact.mean(axis=0)
        return cls(len(exact), mean, _shorten(exact - mean))

    def __add__(self, other: Moments) -> Moments:
        """Chan et al., "Updating formulae and a pairwise algorithm for computing sample variances" (1979)."""
        count = self.count + other.count
        step = other.mean - self.mean
        between = step * np.sqrt(self.count * other.count / count)
        root = _shorten(np.concatenate([self.root, other.root, between[None]]))
        return Moments(count, self.mean + step * (other.count / count), root)

    @property
    def covariance_root(self) -> F64:
        return np.asarray(self.root / np.sqrt(self.count - 1), np.float64)


def _shorten(root: F64) -> F64:
    """The same root.T @ root in no more than D rows, once there are twice as many."""
    return np.asarray(np.linalg.qr(root, mode="r")) if len(root) > 2 * root.shape[1] else root


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean a - mean b|² + tr(A + B - 2 (A B)^½) for the covariances A and B.

    With roots R.T R = A and S.T S = B the trace of (A B)^½ is the sum of the singular values of R S.T. That
    is real and exact where A B is singular, as it is for fewer frames than features. (pytorch-fid takes a
    matrix square root of A B, by an argument of SciPy's that SciPy 1.18 no longer has.)

    Raises ClipError("fid", "too-few-frames") for fewer than two vectors on a side.
    """
    if min(a.count, b.count) < 2:
        raise ClipError("fid", "too-few-frames", f"{a.count} and {b.count} frames have no covariance")
    root_a, root_b, step = a.covariance_root, b.covariance_root, a.mean - b.mean
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(step @ step + (root_a**2).sum() + (root_b**2).sum() - 2 * cross)


@torch.inference_mode()
def inception_features(network: nn.Module, pictures: Iterable[U8]) -> F32:
    """Features [n,2048] of pictures [H,W,3] RGB of any sizes, as pytorch-fid computes them."""
    device = next(network.parameters()).device
    inputs = (_inception_input(picture, device) for picture in pictures)
    features = [np.zeros((0, FEATURES), np.float32)]
    # TensorFloat-32 keeps 10 bits of mantissa: too coarse to agree with pytorch-fid's command.
    with torch.backends.cudnn.flags(allow_tf32=False):
        while batch := list(islice(inputs, BATCH)):
            features.append(network(torch.cat(batch)).cpu().numpy())
    return np.concatenate(features)


def _inception_input(picture: U8, device: torch.device) -> Tensor:
    """[1,3,299,299] float32 in -1..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(device).permute(2, 0, 1)[None].float() / 255
    return 2 * F.interpolate(pixels, (INPUT_PX, INPUT_PX), mode="bilinear", align_corners=False) - 1


def build_inception(weights: Mapping[str, Tensor]) -> nn.Module:
    """A network from pictures [n,3,299,299] in -1..1 to features [n,2048].

    It is torchvision's Inception v3 with pytorch-fid's blocks, which pool as TensorFlow's do. (pytorch-fid's
    own constructor downloads its weights.) Raises RuntimeError for the weights of another network.
    """
    # These bring torchvision: two seconds that other metrics do without.
    from pytorch_fid import inception as fid_blocks
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    network.Mixed_5b = fid_blocks.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = fid_blocks.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = fid_blocks.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = fid_blocks.FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = fid_blocks.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = fid_blocks.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = fid_blocks.FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = fid_blocks.FIDInceptionE_1(1280)
    network.Mixed_7c = fid_blocks.FIDInceptionE_2(2048)
    network.load_state_dict(weights)
    network.dropout = network.fc = nn.Identity()  # the features are what the classifier would get
    return network.eval().requires_grad_(False)  # type: ignore[no-any-return]
