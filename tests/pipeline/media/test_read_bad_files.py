"""Files that are not what they should be: each fails with a reason of its own, none hangs or reaches
elsewhere."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.records import ClipError


def reason(path: Path, **options: float) -> str:
    """Why this file cannot be decoded to its end."""
    with pytest.raises(ClipError) as caught:
        list(open_video(path, **options).chunks())
    assert caught.value.stage == "media"
    assert caught.value.detail
    assert str(path.parent) not in caught.value.detail  # rejects of two machines must be equal
    return caught.value.reason


@pytest.fixture
def mp4(media: ModuleType, tmp_path: Path) -> Path:
    """Four seconds with sound, its index in front, so that a part of it can be decoded."""
    path = tmp_path / "good.mp4"
    media.flash_click(path, media.FlashClick(options=("-movflags", "+faststart", "-g", "10")))
    return path


def test_missing_file(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.mp4") == "missing-file"
    assert reason(tmp_path / "none" / "none.mp4") == "missing-file"
    assert reason(tmp_path / "zero\0byte.mp4") == "missing-file"


def test_broken_symlink(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "round.mp4").symlink_to(tmp_path / "round.mp4")
    assert reason(tmp_path / "link.mp4") == "broken-symlink"
    assert reason(tmp_path / "round.mp4") == "broken-symlink"


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    assert reason(tmp_path / "folder.mp4") == "directory"


def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    assert reason(tmp_path / "fifo.mp4") == "not-a-file"
    assert reason(Path("/dev/zero")) == "not-a-file"


@pytest.mark.parametrize(("number", "transient"), [(errno.EACCES, False), (errno.EIO, True)])
def test_unreadable_file(mp4: Path, monkeypatch: pytest.MonkeyPatch, number: int, transient: bool) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)  # file modes do not stop tests that run as root
    with pytest.raises(ClipError) as caught:
        probe(mp4)
    assert (caught.value.reason, caught.value.transient) == ("unreadable-file", transient)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert reason(tmp_path / "empty.mp4") == "empty-file"


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mpg", "mkv", ""])
def test_not_media(tmp_path: Path, suffix: str) -> None:
    text, noise = tmp_path / f"text.{suffix}", tmp_path / f"noise.{suffix}"
    text.write_text("Text:  THIS IS NO VIDEO\nConf:  5\n" * 50)
    noise.write_bytes(np.random.default_rng(0).bytes(20_000))
    assert reason(text) in ("not-media", "forbidden-format")
    assert reason(noise) in ("not-media", "forbidden-format")


def test_text_renamed_to_mp4(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("a few words\n")
    assert reason(tmp_path / "text.mp4") == "not-media"


@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "ffconcat"])
@pytest.mark.parametrize("kind", ["hls", "ffconcat", "concat", "sdp", "dash"])
def test_playlists_open_nothing_else(mp4: Path, tmp_path: Path, suffix: str, kind: str) -> None:
    """Neither another file nor an address, whatever the playlist is called."""
    server = socket.create_server(("127.0.0.1", 0))  # the kernel completes a connection before it is accepted
    server.setblocking(False)
    address = f"http://127.0.0.1:{server.getsockname()[1]}/video.mp4"
    for target in (mp4.name, f"file:{mp4}", address):
        text = {
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
            "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
            "concat": f"file '{target}'\n",
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
            "a=rtpmap:96 H264/90000\n",
            "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
            f"<AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation></AdaptationSet>"
            "</Period></MPD>",
        }[kind]
        (tmp_path / f"list.{suffix}").write_text(text)
        assert reason(tmp_path / f"list.{suffix}") in ("forbidden-format", "not-media")
    with server, pytest.raises(BlockingIOError):
        server.accept()


def test_playlist_is_named_as_what_it_is(mp4: Path, tmp_path: Path) -> None:
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{mp4.name}'\n")
    assert reason(tmp_path / "list.mp4") == "forbidden-format"


def test_image_sequence_pattern_reads_no_other_picture(media: ModuleType, tmp_path: Path) -> None:
    """For ffmpeg, "%d.png" would mean 0.png, 1.png and so on."""
    frames = media.moving_frames(1, 16, 16)
    for name in ("0.png", "1.png"):
        media.picture_clip(tmp_path / name, frames, "-update", "1")
    (tmp_path / "1.png").rename(tmp_path / "%d.png")
    assert reason(tmp_path / "%d.png") == "forbidden-format"


def test_mp4_cut_before_its_index(media: ModuleType, tmp_path: Path) -> None:
    media.flash_click(tmp_path / "whole.mp4", media.FlashClick())
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert reason(tmp_path / "cut.mp4") == "truncated"


def test_less_than_half_of_a_file_is_truncated(mp4: Path) -> None:
    data = mp4.read_bytes()
    start = data.index(b"mdat")
    mp4.write_bytes(data[: start + (len(data) - start) // 4])
    assert reason(mp4) == "truncated"


def test_more_than_half_of_a_file_is_kept_and_marked(mp4: Path) -> None:
    whole = open_video(mp4)
    expected = sum(len(chunk) for chunk in whole.chunks())
    data = mp4.read_bytes()
    start = data.index(b"mdat")
    mp4.write_bytes(data[: start + (len(data) - start) * 3 // 4])
    video = open_video(mp4)
    frames = sum(len(chunk) for chunk in video.chunks())
    assert expected * 0.5 < frames < expected
    assert whole.damage is None
    assert video.damage


def test_damage_in_the_middle_is_marked_and_stays_in_step(mp4: Path) -> None:
    expected = sum(len(chunk) for chunk in open_video(mp4).chunks())
    data = bytearray(mp4.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 300] = np.random.default_rng(1).bytes(300)
    mp4.write_bytes(data)
    video = open_video(mp4)
    frames = sum(len(chunk) for chunk in video.chunks())
    assert abs(frames - expected) <= 2
    assert video.damage


def test_nothing_decodes(mp4: Path) -> None:
    data = bytearray(mp4.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    mp4.write_bytes(data)
    assert reason(mp4) == "decode-error"


def test_no_video(media: ModuleType, tmp_path: Path) -> None:
    media.ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "sound.mp4")
    assert reason(tmp_path / "sound.mp4") == "no-video"
    info = probe(tmp_path / "sound.mp4")
    assert (info.has_video, info.has_audio, info.width_px) == (False, True, 0)


def test_cover_art_is_no_video(media: ModuleType, tmp_path: Path) -> None:
    media.picture_clip(tmp_path / "cover.png", media.moving_frames(1, 16, 16), "-update", "1")
    media.ffmpeg(
        "-f", "lavfi", "-i", "sine=duration=1", "-i", tmp_path / "cover.png", "-map", 0, "-map", 1,
        "-c:v", "copy", "-disposition:v", "attached_pic", tmp_path / "song.mp4",
    )  # fmt: skip
    assert reason(tmp_path / "song.mp4") == "no-video"
    assert read_audio(tmp_path / "song.mp4") is not None


def test_subtitles_only(media: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    media.ffmpeg("-i", tmp_path / "words.srt", "-c:s", "mov_text", tmp_path / "words.mp4")
    assert reason(tmp_path / "words.mp4") == "no-video"


def test_one_frame_is_read(media: ModuleType, tmp_path: Path) -> None:
    """Too few for a clip, which is for the caller to say."""
    path = media.picture_clip(tmp_path / "one.mp4", media.moving_frames(1, 32, 32), *media.H264_AAC)
    assert [len(chunk) for chunk in open_video(path).chunks()] == [1]


def test_8k_picture_is_read_and_a_larger_one_refused(media: ModuleType, tmp_path: Path) -> None:
    for size in ("7680x4320", "9000x5000"):
        source = f"color=black:size={size},format=monob"
        media.ffmpeg("-f", "lavfi", "-i", source, "-frames:v", 1, tmp_path / f"{size}.png")
    (chunk,) = open_video(tmp_path / "7680x4320.png").chunks()
    assert chunk.shape == (1, 4320, 7680, 3)
    assert reason(tmp_path / "9000x5000.png") == "too-large"


def test_pixels_that_become_too_many_when_square(media: ModuleType, tmp_path: Path) -> None:
    path = media.picture_clip(
        tmp_path / "wide.mkv", media.moving_frames(1, 640, 800), "-vf", "setsar=100/1", "-c:v", "ffv1"
    )
    assert reason(path) == "too-large"


def test_start_gap(media: ModuleType, tmp_path: Path) -> None:
    clip = media.FlashClick(video_start_s=30.0, seconds=32.0, events_s=(31.0,))
    media.flash_click(tmp_path / "late.mkv", clip)
    assert reason(tmp_path / "late.mkv") == "start-gap"


def test_too_long(media: ModuleType, tmp_path: Path) -> None:
    """Two pictures 13 hours apart would become more than a million frames."""
    options = ("-vf", "settb=1/1000,setpts=N*13*3600/TB", "-fps_mode", "passthrough", "-c:v", "ffv1")
    path = media.picture_clip(tmp_path / "long.mkv", media.moving_frames(2, 16, 16), *options)
    assert reason(path) == "too-long"


def fake_ffmpeg(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "bin" / "ffmpeg"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")


def test_a_few_pictures_do_not_become_a_long_video(media: ModuleType, tmp_path: Path) -> None:
    """Two kilobytes that claim a picture in a thousand seconds would make 75,000 frames."""
    path = tmp_path / "slow.mkv"
    media.ffmpeg("-f", "lavfi", "-i", "color=size=64x64:rate=1/1000:duration=3000", "-c:v", "libx264", path)
    assert path.stat().st_size < 5000
    with pytest.raises(ClipError) as caught:
        for _ in open_video(path).chunks():
            pass
    assert caught.value.reason == "too-few-pictures"


def test_decode_timeout(mp4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(mp4)
    fake_ffmpeg(tmp_path, "printf 123; exec sleep 600", monkeypatch)
    with pytest.raises(ClipError, match="decode-timeout"):
        probe(mp4, stall_s=0.3)
    with pytest.raises(ClipError, match="decode-timeout"):
        list(open_video(mp4, info=info, stall_s=0.3).chunks())
    with pytest.raises(ClipError, match="decode-timeout"):
        read_audio(mp4, info=info, stall_s=0.3)


def test_crash_of_the_decoder(mp4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(mp4)
    fake_ffmpeg(tmp_path, "kill -SEGV $$", monkeypatch)
    assert reason(mp4) == "decode-error"
    with pytest.raises(ClipError, match="decode-error"):
        list(open_video(mp4, info=info).chunks())


def test_sound_that_cannot_be_decoded(mp4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(mp4)
    fake_ffmpeg(tmp_path, "echo broken >&2; exit 1", monkeypatch)
    with pytest.raises(ClipError, match="decode-error: no sound could be decoded"):
        read_audio(mp4, info=info)


def test_input_is_not_touched(mp4: Path) -> None:
    before = (mp4.read_bytes(), mp4.stat().st_mtime_ns, sorted(mp4.parent.iterdir()))
    list(open_video(mp4).chunks())
    read_audio(mp4)
    assert (mp4.read_bytes(), mp4.stat().st_mtime_ns, sorted(mp4.parent.iterdir())) == before
