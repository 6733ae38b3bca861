"""Do this installation's metrics give the figures that are published for known files? One check a metric.

    lse         SyncNet's example clip: offset 3, distance 5.353, confidence 10.021 (joonson/syncnet_python,
                README, `demo_syncnet.py`), by protocol wav2lip-lrs, whose steps are that program's on a clip
                of 224x224
    lpips       ex_ref.png with ex_p0.png 0.722, with ex_p1.png 0.138 (richzhang/PerceptualSimilarity,
                `test_network.py`)
    fid         two folders of pictures, by pytorch-fid's own command in a process of its own
    pictures    PSNR and SSIM of the same pictures, by scikit-image's functions; these need no weights

A check says `reproduces`, `differs`, or `not checkable`, with what is missing and how to get it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
import torch
from skimage.data import astronaut
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from syncdiff.evaluate.metrics.distribution.fid import (
    Moments,
    build_inception,
    frechet_distance,
    inception_features,
)
from syncdiff.evaluate.metrics.image.lpips import build_lpips, lpips_distances
from syncdiff.evaluate.metrics.image.psnr_ssim import psnr_db, ssim
from syncdiff.evaluate.metrics.sync.lse import sync_distances
from syncdiff.evaluate.metrics.sync.syncnet import SyncNet, build_original
from syncdiff.pipeline.records import U8, ClipError
from syncdiff.pipeline.weights.published import WeightFile, WeightsError, require, weights_folder
from syncdiff.pipeline.weights.torch_file import read_weights

CLIP_ADDRESS = "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/example.avi"
PICTURES_ADDRESS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/imgs"
LPIPS_PICTURES = ("ex_ref", "ex_p0", "ex_p1")
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "lse": {"sync_offset": 3, "lse_d": 5.353, "lse_c": 10.021},
    "lpips": {"ex_p0": 0.722, "ex_p1": 0.138},
}
# lse: half a unit of the last printed digit, and 5e-3 for JPEG and sound of another ffmpeg (measured: 1e-3).
# lpips: half a unit of the last digit. fid: relative; pytorch-fid's matrix square root is that inexact for
# fewer pictures than features. psnr and ssim: rounding.
TOLERANCES = {
    "sync_offset": 0.0,
    "lse_d": 5.5e-3,
    "lse_c": 5.5e-3,
    "ex_p0": 5e-4,
    "ex_p1": 5e-4,
    "psnr": 1e-6,
    "ssim": 1e-6,
}
FID_TOLERANCE = 1e-3
PICTURES, PICTURE_PX = 48, 128  # in each of the two folders made here
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")  # of those that pytorch-fid takes
# pytorch-fid asks SciPy's sqrtm for an error estimate, by an argument that SciPy 1.18 no longer has.
PYTORCH_FID = """
import sys
from scipy import linalg
root = linalg.sqrtm
linalg.sqrtm = lambda matrix, disp=True: root(matrix) if disp else (root(matrix), 0.0)
from pytorch_fid.fid_score import calculate_fid_given_paths
print("FID", calculate_fid_given_paths(sys.argv[1:3], 8, "cpu", 2048, 0))
"""

State = Literal["reproduces", "differs", "not checkable"]
_Figures: TypeAlias = tuple[Mapping[str, float], Mapping[str, float]]
"""Values as measured here, and as they should be, by the same names."""


@dataclass(frozen=True)
class CheckInputs:
    """clip: SyncNet's example.avi. lpips_pictures: folder of ex_ref.png, ex_p0.png, ex_p1.png. fid_folders:
    two folders of pictures, None for pictures made here. expected: figures by metric and value."""

    clip: Path
    lpips_pictures: Path
    fid_folders: tuple[Path, Path] | None = None
    expected: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: PUBLISHED)
    unverified_weights: bool = False


@dataclass(frozen=True)
class Comparison:
    """One value. expected and measured: None where it is not checkable; detail then says what is missing.

    note: what a reader must know, such as weights that are not the published file.
    """

    metric: str
    value: str
    state: State
    source: str
    expected: float | None = None
    measured: float | None = None
    tolerance: float = 0.0
    detail: str = ""
    note: str = ""

    @property
    def difference(self) -> float | None:
        both = self.measured is not None and self.expected is not None
        return self.measured - self.expected if both else None  # type: ignore[operator]


class _MissingError(Exception):
    """A file is not here; the message says how to get it."""


@dataclass(frozen=True)
class _Check:
    """weights: name in the registry, "" for none. measure: from the inputs and the file of the weights."""

    source: str
    weights: str
    measure: Callable[[CheckInputs, Mapping[str, Tensor]], _Figures]


def default_inputs() -> tuple[Path, Path]:
    """Where the example clip and the folder of pictures are looked for unless named: beside the weights."""
    folder = weights_folder() / "check"
    return folder / "example.avi", folder


def run_check(name: str, inputs: CheckInputs) -> list[Comparison]:
    """The comparisons of one of CHECKS; a single one, `not checkable`, where a thing is missing or fails."""
    check = CHECKS[name]
    missing = partial(Comparison, name, "", "not checkable", check.source)
    weights: WeightFile | None = None
    try:
        if check.weights:
            weights = require(check.weights, allow_unverified=inputs.unverified_weights)
        measured, expected = check.measure(inputs, {} if weights is None else read_weights(weights))
    except (WeightsError, _MissingError) as error:
        return [missing(detail=str(error))]
    except (ClipError, OSError, RuntimeError, ValueError) as error:
        return [missing(detail=f"it could not be computed: {type(error).__name__}: {error}")]
    own = inputs.expected is not PUBLISHED and name in inputs.expected
    notes = ["compared with figures given by --expect, not with published ones"] if own else []
    if weights is not None and not weights.verified:
        notes.append(f"UNVERIFIED WEIGHTS: {weights.path.name}'s hash is not the published one")
    comparisons = []
    for value, got in measured.items():
        wanted = float(expected[value])
        tolerance = TOLERANCES.get(value, FID_TOLERANCE * max(1.0, abs(wanted)))
        state: State = "reproduces" if abs(got - wanted) <= tolerance else "differs"
        comparisons.append(
            Comparison(name, value, state, check.source, wanted, got, tolerance, note="; ".join(notes))
        )
    return comparisons


def _lse(inputs: CheckInputs, weights: Mapping[str, Tensor]) -> _Figures:
    _require_file(inputs.clip, CLIP_ADDRESS, "--clip")
    distances = sync_distances(SyncNet(build_original(weights)), inputs.clip, fps=None)
    measured = {
        "sync_offset": float(distances.offset_frames),
        "lse_d": distances.lse_d,
        "lse_c": distances.lse_c,
    }
    return measured, inputs.expected["lse"]


def _lpips(inputs: CheckInputs, weights: Mapping[str, Tensor]) -> _Figures:
    paths = {name: inputs.lpips_pictures / f"{name}.png" for name in LPIPS_PICTURES}
    for name, path in paths.items():
        _require_file(path, f"{PICTURES_ADDRESS}/{name}.png", "--lpips-pictures")
    reference, first, second = (_read(path)[None] for path in paths.values())
    network = build_lpips(weights)
    distances = [float(lpips_distances(network, reference, other)[0]) for other in (first, second)]
    return dict(zip(LPIPS_PICTURES[1:], distances, strict=True)), inputs.expected["lpips"]


def _fid(inputs: CheckInputs, weights: Mapping[str, Tensor]) -> _Figures:
    with tempfile.TemporaryDirectory(prefix="syncdiff-check-") as name:
        folders = inputs.fid_folders or _write_pictures(Path(name))
        network = build_inception(weights)
        moments = [
            Moments.of(inception_features(network, map(_read, _pictures(folder)))) for folder in folders
        ]
        expected = inputs.expected.get("fid")
        theirs = expected["fid"] if expected else _pytorch_fid(folders, weights, Path(name) / "home")
        return {"fid": frechet_distance(*moments)}, {"fid": theirs}


def _pytorch_fid(folders: tuple[Path, Path], weights: Mapping[str, Tensor], home: Path) -> float:
    """What pytorch-fid itself says, with these weights where it looks for its own. Raises RuntimeError."""
    hub = home / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    # written anew: pytorch-fid would run what is pickled in a file of others
    torch.save(dict(weights), hub / "pt_inception-2015-12-05-6726825d.pth")
    command = [sys.executable, "-c", PYTORCH_FID, *(str(folder.absolute()) for folder in folders)]
    environment = {**os.environ, "TORCH_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FID ")]
    if done.returncode or not lines:
        raise RuntimeError(f"pytorch-fid failed: {done.stderr.strip()[-300:]}")
    return float(lines[-1].split()[1])


def _picture_values(inputs: CheckInputs, weights: Mapping[str, Tensor]) -> _Figures:
    """Means over the pictures made here, by our functions and by scikit-image's."""
    pairs = list(zip(*_made_pictures(), strict=True))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    theirs_ssim = [structural_similarity(a, b, channel_axis=-1, **settings) for a, b in pairs]
    theirs_psnr = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs]
    ours_ssim, ours_psnr = [ssim(a, b) for a, b in pairs], [psnr_db(a, b) for a, b in pairs]
    ours = {"psnr": float(np.mean(ours_psnr)), "ssim": float(np.mean(ours_ssim))}
    return ours, {"psnr": float(np.mean(theirs_psnr)), "ssim": float(np.mean(theirs_ssim))}


CHECKS: Mapping[str, _Check] = {
    "lse": _Check("joonson/syncnet_python, README", "syncnet", _lse),
    "lpips": _Check("richzhang/PerceptualSimilarity, test_network.py", "alexnet", _lpips),
    "fid": _Check("pytorch-fid, run here on the same pictures", "inception", _fid),
    "pictures": _Check("scikit-image, run here on the same pictures", "", _picture_values),
}


def _made_pictures() -> tuple[list[U8], list[U8]]:
    """PICTURES cuts of scikit-image's astronaut (NASA, public domain), sharp and blurred; always the same."""
    whole, places = np.asarray(astronaut(), np.uint8), np.random.default_rng(0)
    corners = places.integers(0, len(whole) - PICTURE_PX, (PICTURES, 2))
    sharp = [whole[y : y + PICTURE_PX, x : x + PICTURE_PX] for y, x in corners]
    return sharp, [np.asarray(cv2.GaussianBlur(cut, (0, 0), 2.0), np.uint8) for cut in sharp]


def _write_pictures(folder: Path) -> tuple[Path, Path]:
    paths = folder / "sharp", folder / "blurred"
    for path, pictures in zip(paths, _made_pictures(), strict=True):
        path.mkdir()
        for number, picture in enumerate(pictures):
            cv2.imwrite(str(path / f"{number:03d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return paths


def _pictures(folder: Path) -> list[Path]:
    """Raises _MissingError where there are fewer than two."""
    files = sorted(p for p in folder.glob("*") if p.suffix in PICTURE_SUFFIXES)
    if len(files) < 2:
        raise _MissingError(f"{folder} holds no two pictures ({', '.join(PICTURE_SUFFIXES)})")
    return files


def _read(path: Path) -> U8:
    """A picture [H,W,3] RGB. Raises ValueError."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path} is no picture")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _require_file(path: Path, address: str, option: str) -> None:
    if not path.is_file():
        raise _MissingError(
            f"{path} is not here\nget it with: curl -L --create-dirs -o {shlex.quote(str(path))} {address}\n"
            f"or say where it is with {option}"
        )
