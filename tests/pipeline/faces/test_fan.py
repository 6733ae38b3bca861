"""The face-alignment backend with randomly filled networks: everything but the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from face_alignment import FaceAlignment, LandmarksType
from face_alignment.detection.sfd.detect import batch_detect
from face_alignment.detection.sfd.net_s3fd import s3fd
from face_alignment.models import FAN

from syncdiff.pipeline.faces.backend import BatchBackend, box_of_shape
from syncdiff.pipeline.faces.fan import FaceAlignmentBackend, decode_s3fd, fan_squares, heatmap_peaks
from syncdiff.pipeline.faces.track import make_backend, track_faces
from syncdiff.pipeline.faces.tracker import TrackConfig
from syncdiff.pipeline.records import F32, U8, ClipError
from syncdiff.pipeline.weights.published import WeightsError

HEADS = ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2")


def frames(count: int, height: int = 120, width: int = 160, seed: int = 0) -> list[U8]:
    """Smooth random pictures."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return [np.asarray(cv2.resize(picture, (width, height)), np.uint8) for picture in coarse]


def to_batch(pictures: list[U8]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


@torch.no_grad()
def random_s3fd() -> s3fd:
    """A network that finds a few boxes of ordinary sizes in pictures of `frames`."""
    torch.manual_seed(1)
    network = s3fd().eval()
    for name, parameter in network.named_parameters():
        if parameter.dim() == 4:
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        elif name.endswith("bias"):
            parameter.zero_()
    mean = torch.tensor((104.0, 117.0, 123.0)).view(1, 3, 1, 1)
    outputs = network(to_batch(frames(2)).flip(1) - mean)
    for level, head in enumerate(HEADS):
        confidence = getattr(network, f"{head}_mbox_conf")
        confidence.weight /= (outputs[2 * level][:, 1] - outputs[2 * level][:, 0]).std() + 1e-3
        confidence.bias[-1] = -3.0
        location = getattr(network, f"{head}_mbox_loc")
        location.weight /= 2 * outputs[2 * level + 1].std() + 1e-3
    return network


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of this size are slower on two threads when anything else runs beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PyTorch hub folder with random weights under the names of the package's downloads."""
    home: Path = tmp_path_factory.mktemp("torch")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(random_s3fd().state_dict(), folder / "s3fd-619a316812.pth")
    torch.manual_seed(2)
    torch.save(FAN(4).state_dict(), folder / "2DFAN4-11f355bf06.pth.tar")
    return home


@pytest.fixture(scope="module")
def here(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """These weights, and no others, where they are looked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(weights))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("SYNCDIFF_WEIGHTS", raising=False)
        yield weights


@pytest.fixture(scope="module")
def backend(here: Path) -> FaceAlignmentBackend:
    return FaceAlignmentBackend("cpu", max_faces=1, allow_unverified=True)


@pytest.fixture(scope="module")
def package(here: Path) -> FaceAlignment:
    """The package's own interface with the same weights."""
    return FaceAlignment(LandmarksType.TWO_D, device="cpu", compile=False)


def test_detections_equal_the_packages(backend: FaceAlignmentBackend, package: FaceAlignment) -> None:
    pictures = frames(3)
    ours = backend.detect(pictures)
    assert sum(len(one) for one in ours) == 3
    for picture, found in zip(pictures, ours, strict=True):
        theirs = np.array(package.face_detector.detect_from_image(picture)).reshape(-1, 5)[:1]
        np.testing.assert_allclose(found.boxes_px, theirs[:, :4], rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(found.scores, theirs[:, 4], atol=1e-5)


def test_decoding_equals_the_packages_anchor_by_anchor(here: Path) -> None:
    network, pictures = random_s3fd(), frames(1)
    theirs = batch_detect(network, to_batch(pictures), "cpu")[0]
    theirs = theirs[theirs[:, 4] > 0.5]
    mean = torch.tensor((104.0, 117.0, 123.0)).view(1, 3, 1, 1)
    with torch.inference_mode():
        ours = decode_s3fd(network(to_batch(pictures).flip(1) - mean))[0]
    order = np.argsort(-theirs[:, 4], kind="stable")
    np.testing.assert_allclose(ours[:, 4], theirs[order, 4], atol=1e-5)
    np.testing.assert_allclose(np.sort(ours, axis=0), np.sort(theirs, axis=0), rtol=1e-4, atol=1e-2)


def test_landmarks_equal_the_packages_but_for_its_rounding(
    backend: FaceAlignmentBackend, package: FaceAlignment
) -> None:
    (picture,) = frames(1)
    box = np.array([[40, 30, 100, 110]], np.float32)
    ours = backend.fit([picture], box)
    ((theirs,), (heights,), _) = package.get_landmarks_from_image(
        picture, [np.append(box[0], 1.0)], return_landmark_score=True
    )
    # the package cuts its points, with pixel edges at whole numbers, off to whole pixels
    assert np.mean(np.trunc(ours.landmarks_px[0] + 0.5) == theirs) > 0.97
    assert ours.uncertainty[0] == pytest.approx(1 - heights.mean() / 2, abs=1e-5)


def test_a_batch_gives_what_single_frames_give(backend: FaceAlignmentBackend) -> None:
    pictures = frames(2, seed=5)
    together = backend.observe(pictures)
    for picture, seen in zip(pictures, together, strict=True):
        (alone,) = backend.observe([picture])
        np.testing.assert_allclose(seen.scores, alone.scores, atol=1e-5)
        np.testing.assert_allclose(seen.shapes.landmarks_px, alone.shapes.landmarks_px, atol=0.05)


def test_coordinates_are_of_the_frame_when_it_is_reduced(here: Path) -> None:
    (small,) = frames(1)
    large = np.asarray(cv2.resize(small, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST), np.uint8)
    backend = FaceAlignmentBackend("cpu", search_side_px=160, allow_unverified=True)
    np.testing.assert_allclose(
        backend.detect([large])[0].boxes_px, 4 * backend.detect([small])[0].boxes_px, rtol=1e-4
    )


def test_the_square_maps_heatmap_cells_to_the_frame() -> None:
    centres, scales = fan_squares(np.array([[100, 200, 295, 395]], np.float32))
    assert centres[0] == pytest.approx((197.5, 297.5 - 0.12 * 195))
    assert scales[0] == pytest.approx(2.0)  # a square of 400 px


def test_peaks_lean_towards_the_higher_neighbour() -> None:
    heatmaps = np.zeros((1, 68, 64, 64), np.float32)
    heatmaps[:, :, 20, 10] = 1.0
    heatmaps[:, :, 20, 11] = 0.5
    heatmaps[:, :, 19, 10] = 0.25
    heatmaps[0, 1] = 0
    heatmaps[0, 1, 0, 63] = 0.7  # at the edge it stays
    cells, heights = heatmap_peaks(heatmaps)
    assert tuple(cells[0, 0]) == (10.25, 19.75)
    assert tuple(cells[0, 1]) == (63.0, 0.0)
    assert heights[0, 0] == 1.0 and heights[0, 1] == np.float32(0.7)


def test_a_frame_without_a_face_is_an_empty_record(backend: FaceAlignmentBackend) -> None:
    shapes = backend.fit([], np.zeros((0, 4), np.float32))
    assert shapes.landmarks_px.shape == (0, 68, 2) and shapes.uncertainty.shape == (0,)


def test_tracking_runs_with_it(backend: FaceAlignmentBackend) -> None:
    assert isinstance(backend, BatchBackend)
    config = TrackConfig(min_face_px=1, max_asymmetry=1.0, min_track_frames=2)
    try:
        result = track_faces([np.stack(frames(1) * 2)], backend, config)
    except ClipError as error:
        assert error.stage == "track"
    else:
        assert result.num_frames == 2
        for track in result.tracks:
            np.testing.assert_allclose(box_of_shape(track.landmarks_px)[0], track.boxes_px, atol=1e-3)


def test_missing_weights_say_what_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME", "SYNCDIFF_WEIGHTS"):
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"(?s)s3fd-619a316812\.pth is not here.*weights fetch s3fd"
    ) as caught:
        make_backend("face-alignment")
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.rglob("*.pth"))


def test_weights_that_are_not_the_published_are_refused(here: Path) -> None:
    with pytest.raises(WeightsError, match="not the published"):
        FaceAlignmentBackend("cpu")


def test_a_file_of_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCDIFF_WEIGHTS", str(tmp_path))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "s3fd-619a316812.pth")
    with pytest.raises(WeightsError, match="does not hold the weights"):
        FaceAlignmentBackend("cpu", allow_unverified=True)
    (tmp_path / "s3fd-619a316812.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="does not hold the weights"):
        FaceAlignmentBackend("cpu", allow_unverified=True)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(here: Path, backend: FaceAlignmentBackend) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pictures = frames(2)
    on_gpu = FaceAlignmentBackend("cuda", allow_unverified=True)
    boxes = np.array([[40, 30, 100, 110], [20, 10, 90, 100]], np.float32)
    cpu, gpu = backend.fit(pictures, boxes), on_gpu.fit(pictures, boxes)
    assert float(np.median(np.abs(cpu.landmarks_px - gpu.landmarks_px))) < 0.5
    np.testing.assert_allclose(cpu.uncertainty, gpu.uncertainty, atol=1e-2)


def test_boxes_are_float32(backend: FaceAlignmentBackend) -> None:
    (found,) = backend.detect(frames(1))
    boxes: F32 = found.boxes_px
    assert boxes.dtype == np.float32 and found.scores.dtype == np.float32
