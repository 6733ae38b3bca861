from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from syncnet_python.SyncNetInstance import calc_pdist

from syncdiff.evaluate.metrics.sync.lse import (
    count_windows,
    embed_frames,
    embed_sound,
    mean_distances,
    sync_distances,
)
from syncdiff.evaluate.metrics.sync.lse_media import jpeg_frames, protocol_sound
from syncdiff.evaluate.metrics.sync.syncnet import EMBEDDING_SIZE, SyncNet
from syncdiff.pipeline.features.filterbanks import mfcc
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.records import ClipError

from ...conftest import picture, tone


@pytest.fixture(scope="module")
def original(golden: Path) -> dict[str, np.ndarray]:
    """What Wav2Lip's LRS script computed for astronaut.mp4."""
    with np.load(golden / "astronaut_syncnet.npz") as arrays:
        return dict(arrays)


def test_equals_the_original_program(syncnet: SyncNet, golden: Path, original: dict[str, np.ndarray]):
    ours = sync_distances(syncnet, golden / "astronaut.mp4")
    assert ours.windows == original["windows"]
    assert ours.offset_frames == original["offset_frames"]
    np.testing.assert_allclose(ours.mean_distances.numpy(), original["mean_distances"], rtol=1e-4)
    assert ours.lse_d == pytest.approx(float(original["lse_d"]), rel=1e-4)
    assert ours.lse_c == pytest.approx(float(original["lse_c"]), abs=2e-3)


def test_embeddings_equal_the_originals(syncnet: SyncNet, golden: Path, original: dict[str, np.ndarray]):
    """Of every eighth window."""
    lips, frames = embed_frames(syncnet, jpeg_frames(golden / "astronaut.mp4"))
    assert frames == 65
    windows = int(original["windows"])
    sound = embed_sound(syncnet, protocol_sound(golden / "astronaut.mp4"), windows)
    np.testing.assert_allclose(lips[:windows:8].numpy(), original["video_embeddings"], atol=1e-3)
    np.testing.assert_allclose(sound[::8].numpy(), original["audio_embeddings"], atol=1e-3)


def test_network_equals_syncnet_python(syncnet: SyncNet, original_syncnet: torch.nn.Module):
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (11, 224, 224, 3), dtype=np.uint8))
    planes = frames.permute(3, 0, 1, 2).float()[None]
    steps = torch.from_numpy(mfcc(rng.integers(-9000, 9000, 11 * 640, dtype=np.int16)).T)
    with torch.no_grad():
        lips = torch.cat([original_syncnet.forward_lip(planes[:, :, t : t + 5]) for t in range(7)])
        speech = torch.cat(
            [original_syncnet.forward_aud(steps[None, None, :, 4 * t : 4 * t + 20]) for t in range(6)]
        )
    torch.testing.assert_close(syncnet.embed_lips(frames), lips, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(syncnet.embed_sound(steps, 6), speech, rtol=1e-4, atol=1e-4)


def test_original_network_is_not_changed(original_syncnet: torch.nn.Module):
    before = {name: tensor.clone() for name, tensor in original_syncnet.state_dict().items()}
    SyncNet(original_syncnet)
    for name, tensor in original_syncnet.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_distances_equal_syncnet_python():
    generator = torch.Generator().manual_seed(0)
    lips, speech = (torch.randn(23, 40, generator=generator) for _ in range(2))
    expected = torch.stack(calc_pdist(lips, speech, vshift=15), 1).mean(1)
    torch.testing.assert_close(mean_distances(lips, speech), expected)


def test_shifted_embeddings_are_found_at_their_shift():
    lips = torch.randn(60, 32, generator=torch.Generator().manual_seed(0))
    late = torch.roll(lips, 3, dims=0)  # speech for a window comes three windows later
    assert int(mean_distances(lips, late).argmin()) == 15 + 3


@pytest.mark.parametrize(("frames", "samples", "windows"), [(75, 47648, 69), (75, 10**6, 70), (5, 10**6, 0)])
def test_window_count(frames: int, samples: int, windows: int):
    assert count_windows(frames, samples) == windows


def test_embeddings_do_not_depend_on_batches(syncnet: SyncNet):
    frames = np.random.default_rng(1).integers(0, 256, (14, 224, 224, 3), dtype=np.uint8)
    together = syncnet.embed_lips(torch.from_numpy(frames))
    for count in (5, 8, 9, 14):
        streamed, total = embed_frames(syncnet, frames[:count])
        assert total == count
        torch.testing.assert_close(streamed, together[: count - 4], rtol=1e-4, atol=1e-4)
    nothing, total = embed_frames(syncnet, frames[:4])
    assert (len(nothing), total) == (0, 4)


def ffmpeg(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    command = [ffmpeg_binary(), "-loglevel", "error", *arguments]
    return subprocess.run(command, check=True, input=stdin, capture_output=True).stdout


def test_pipe_gives_the_frames_that_files_give(make_media, tmp_path: Path):
    clip = make_media("full.mp4", *picture(2), "-vf", "noise=alls=30:allf=t", "-pix_fmt", "yuvj420p")
    ffmpeg("-i", clip, "-threads", "1", "-f", "image2", tmp_path / "%05d.jpg")
    on_disk = [cv2.imread(str(path)) for path in sorted(tmp_path.glob("*.jpg"))]
    np.testing.assert_array_equal(np.stack(list(jpeg_frames(clip, fps=None))), np.stack(on_disk))


def older_swscale(values: np.ndarray, ceiling: int, factor: int, offset: int, bits: int) -> np.ndarray:
    """lumRangeToJpeg_c and chrRangeToJpeg_c: 8-bit values held times 128, converted, rounded back."""
    held = (np.minimum(values.astype(np.int64) * 128, ceiling) * factor - offset) >> bits
    return ((held + 64) >> 7).clip(0, 255).astype(np.uint8)


def test_limited_range_is_widened_as_older_ffmpegs_do(make_media, tmp_path: Path):
    width, height = 96, 64
    noise = "format=yuv420p,noise=alls=40:allf=t"
    clip = make_media("limited.avi", *picture(1, size="96x64"), "-vf", noise, "-c:v", "ffv1")
    raw = ffmpeg("-i", clip, "-f", "rawvideo", "-")
    frames = np.frombuffer(raw, np.uint8).reshape(-1, width * height * 3 // 2)
    luma = older_swscale(frames[:, : width * height], 30189, 19077, 39057361, 14)
    chroma = older_swscale(frames[:, width * height :], 30775, 4663, 9289992, 12)
    source = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "96x64", "-r", "25", "-i", "-"]
    already_full = ["-vf", "setsar=1,setparams=range=pc", "-threads", "1"]
    wide = np.concatenate([luma, chroma], axis=1).tobytes()
    ffmpeg(*source, *already_full, "-f", "image2", tmp_path / "%05d.jpg", stdin=wide)
    expected = [cv2.resize(cv2.imread(str(path)), (224, 224)) for path in sorted(tmp_path.glob("*.jpg"))]
    np.testing.assert_array_equal(np.stack(list(jpeg_frames(clip))), np.stack(expected))


def test_other_rates_are_brought_to_25(make_media):
    clip = make_media("fast.mp4", *picture(2, fps=50))
    assert len(list(jpeg_frames(clip))) == 50
    assert len(list(jpeg_frames(clip, fps=None))) == 100


def test_no_sound(make_media, syncnet: SyncNet):
    with pytest.raises(ClipError) as error:
        sync_distances(syncnet, make_media("silent.mp4", *picture()))
    assert error.value.reason == "no-sound"


def test_no_picture(make_media, syncnet: SyncNet):
    clip = make_media("only_sound.wav", *tone())
    with pytest.raises(ClipError) as error:
        list(jpeg_frames(clip))
    assert error.value.reason == "no-video"


def test_too_short(make_media, syncnet: SyncNet):
    clip = make_media("short.mp4", *picture(0.2), *tone(0.2), "-c:a", "aac", "-shortest")
    with pytest.raises(ClipError) as error:
        sync_distances(syncnet, clip)
    assert error.value.reason == "too-short"


def test_unreadable(tmp_path: Path, syncnet: SyncNet):
    path = tmp_path / "text.mp4"
    path.write_text("no video at all")
    with pytest.raises(ClipError) as error:
        sync_distances(syncnet, path)
    assert error.value.stage == "media"


def test_sound_of_another_file(make_media, syncnet: SyncNet):
    silent = make_media("mute.mp4", *picture())
    speech = make_media("speech.wav", *tone())
    assert sync_distances(syncnet, silent, speech).windows == 20
    assert EMBEDDING_SIZE == 1024
