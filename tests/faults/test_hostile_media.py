"""Thousands of damaged and malicious media through the whole preparation: each a row or a reject."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from syncdiff.pipeline.datasets.clip_ids import escape_path
from syncdiff.pipeline.store.read import open_dataset

from .harness import Row, executable, run

FILES = 2000
CONTAINERS = (
    ("mp4", ("-c:v", "libx264", "-c:a", "aac")),
    ("mov", ("-c:v", "mjpeg", "-c:a", "pcm_s16le")),
    ("mkv", ("-c:v", "libx265", "-c:a", "libopus")),
    ("avi", ("-c:v", "mpeg4", "-c:a", "libmp3lame")),
    ("mpg", ("-c:v", "mpeg1video", "-c:a", "mp2", "-ac", "2", "-ar", "44100")),
    ("ts", ("-c:v", "libx264", "-c:a", "aac")),
    ("webm", ("-c:v", "libvpx", "-b:v", "200k", "-c:a", "libopus")),
    ("flv", ("-c:v", "flv1", "-c:a", "libmp3lame", "-ar", "44100")),
)


def mutate(data: bytes, dice: random.Random) -> bytes:
    """Flipped bytes (mostly in the head, where the structure is), a cut, a doubled or a swapped stretch."""
    changed = bytearray(data)
    kind = dice.choice(("head", "anywhere", "cut", "double", "zero", "swap"))
    if kind in ("head", "anywhere"):
        reach = min(len(changed), 2048) if kind == "head" else len(changed)
        for _ in range(dice.choice((1, 4, 16, 64))):
            changed[dice.randrange(reach)] = dice.randrange(256)
        return bytes(changed)
    start = dice.randrange(len(changed))
    end = min(len(changed), start + dice.randrange(1, 4096))
    if kind == "cut":
        return bytes(changed[:start])
    if kind == "double":
        return bytes(changed[:end] + changed[start:])
    if kind == "zero":
        changed[start:end] = bytes(end - start)
        return bytes(changed)
    return bytes(changed[end:] + changed[:end])


@pytest.fixture(scope="module")
def originals(
    sample_raw: Path, media: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Half a second of a speaking face in each container, by suffix."""
    folder = tmp_path_factory.mktemp("originals")
    clip = sorted((sample_raw / "mvlrs_v1" / "main" / "astronaut").glob("*.mp4"))[0]
    written = {}
    for suffix, codecs in CONTAINERS:
        path = folder / f"clip.{suffix}"
        media.ffmpeg("-i", clip, "-t", "0.6", *codecs, path)
        written[suffix] = path.read_bytes()
    return written


def test_mutated_media(
    row: Callable[[str, int], Row],
    times: Callable[[int], int],
    originals: dict[str, bytes],
    settings: Path,
    tmp_path: Path,
) -> None:
    dice, raw, out = random.Random(8), tmp_path / "raw", tmp_path / "store"
    raw.mkdir()
    for number in range(times(FILES)):
        suffix = dice.choice(sorted(originals))
        (raw / f"{number:05}.{suffix}").write_bytes(mutate(originals[suffix], dice))
    before = {p.name: p.read_bytes() for p in raw.iterdir()}
    code, said = run(
        executable("syncdiff-prep"), "folder", raw, "--out", out, "--config", settings, timeout_s=3000
    )
    line = row("mutated media, whole preparation", 8)
    assert code == 0, said[-2000:]
    rejects = {r["source"]: r for r in pq.read_table(out / "rejects.parquet").to_pylist()}
    rows = {clip.value("source") for clip in open_dataset(out)}
    for name in before:
        bad = rejects.get(name)
        if (name in rows) == (bad is not None):
            line.count(f"{name}: {'both' if bad else 'neither'} row and reject")
        elif bad and bad["reason"] in ("internal-error", "worker-crashed", "worker-stuck", "out-of-memory"):
            line.count(f"{name}: {bad['reason']}: {bad['detail']}")
        else:
            line.count()
    assert {p.name: p.read_bytes() for p in raw.iterdir()} == before
    assert not line.lost


def references(target: str) -> dict[str, str]:
    """Files that ask a reader to open something else, by name."""
    return {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
        "dash.mp4": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f"<AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation></AdaptationSet>"
        "</Period></MPD>",
        "concat.mp4": f"ffconcat version 1.0\nfile '{target}'\n",
        "concat.mkv": f"ffconcat version 1.0\nfile '{target}'\n",
        "session.avi": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nu={target}\nc=IN IP4 127.0.0.1\n"
        "t=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "asx.mp4": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
        "xspf.mp4": f"<playlist><trackList><track><location>{target}</location>"
        "</track></trackList></playlist>",
        "pls.mp4": f"[playlist]\nFile1={target}\nNumberOfEntries=1\nVersion=2\n",
        "link.mov": f"RTSPtext\n{target}\n",
    }


def test_references_open_nothing(
    row: Callable[[str, int], Row], sample_raw: Path, settings: Path, tmp_path: Path
) -> None:
    """No connection is opened, and the private clip that the references name is neither read nor a row."""
    secret = tmp_path / "private" / "secret.mp4"
    secret.parent.mkdir()
    secret.write_bytes(sorted((sample_raw / "mvlrs_v1").rglob("*.mp4"))[0].read_bytes())
    connections = []
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(1.0)
    stop = threading.Event()

    def listen() -> None:
        while not stop.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            connections.append(connection.recv(4096))
            connection.close()

    thread = threading.Thread(target=listen)
    thread.start()
    port = server.getsockname()[1]
    raw, out = tmp_path / "raw", tmp_path / "store"
    targets = {
        "web": f"http://127.0.0.1:{port}/x.mp4",
        "tcp": f"tcp://127.0.0.1:{port}",
        "file": f"file://{secret}",
        "path": str(secret),
        "up": "../private/secret.mp4",
        "subfile": f"subfile,,start,0,end,99999999,,:{secret}",
        "crypto": f"crypto:{secret}",
        "cache": f"cache:{secret}",
        "concat": f"concat:{secret}|{secret}",
        "data": "data:text/plain;base64,AAAA",
    }
    for kind, target in targets.items():
        (raw / kind).mkdir(parents=True)
        for name, text in references(target).items():
            (raw / kind / name).write_text(text)
    canary = tmp_path / "canary"  # shows that this disk keeps the time of reading
    canary.write_text("read")
    for path in (secret, canary):
        os.utime(path, ns=(0, path.stat().st_mtime_ns))
    assert canary.read_text() and secret.stat().st_atime_ns == 0
    try:
        code, said = run(executable("syncdiff-prep"), "folder", raw, "--out", out, "--config", settings)
    finally:
        stop.set()
        thread.join()
        server.close()
    line = row("playlists and references", 0)
    assert code == 0, said
    reasons = {r["source"] for r in pq.read_table(out / "rejects.parquet").to_pylist()}
    listed = [p.relative_to(raw).as_posix() for p in raw.rglob("*") if p.is_file() and p.suffix != ".m3u8"]
    for name in listed:
        line.count("" if name in reasons else f"{name} was not rejected")
    assert not connections
    if canary.stat().st_atime_ns:
        line.count("" if secret.stat().st_atime_ns == 0 else "the file that references name was read")
    assert not list(open_dataset(out))
    assert not line.lost


# Run in a process whose opens are written down: reads files as the preparation does.
READ_ALL = """
import sys
from pathlib import Path
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.records import ClipError
for path in map(Path, sys.argv[1:]):
    try:
        info = probe(path)
        print(path.name, sum(1 for _ in open_video(path, info=info).chunks()))
        read_audio(path, info=info)
    except ClipError as error:
        print(path.name, error.reason)
"""


def test_opens_are_traced(row: Callable[[str, int], Row], sample_raw: Path, tmp_path: Path) -> None:
    """Of the files below the folder, ffmpeg and we open those we were asked for; of the net, nothing."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    private = tmp_path / "private" / "secret.mp4"
    raw, log = tmp_path / "raw", tmp_path / "opens"
    private.parent.mkdir()
    raw.mkdir()
    clip = sorted((sample_raw / "mvlrs_v1").rglob("*.mp4"))[0]
    shutil.copy(clip, private)
    shutil.copy(clip, raw / "good.mp4")
    asked = [raw / "good.mp4"]
    for number, target in enumerate(("../private/secret.mp4", str(private), f"concat:{private}|{private}",
                                     "http://127.0.0.1:9/x.mp4", "tcp://127.0.0.1:9")):  # fmt: skip
        for name, text in references(target).items():
            asked.append(raw / f"{number}-{name}")
            asked[-1].write_text(text)
    trace = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2,connect", "-o", log]
    code, said = run(*trace, executable("python"), "-c", READ_ALL, *asked)
    if code and "ptrace" in said:
        pytest.skip("tracing is not allowed here")
    assert code == 0, said
    calls = log.read_text(errors="replace").splitlines()
    opened = set(re.findall(r'open(?:at2?)?\([^"]*"([^"]*)"', "\n".join(calls)))
    line = row("traced opens of playlists and references", 0)
    assert str(raw / "good.mp4") in opened
    assert re.search(r"good\.mp4 \d+", said), said
    for path in asked:
        line.count("" if str(path) in opened else f"{path.name} was not even opened")
    strangers = [name for name in opened if "secret" in name]
    line.count(f"opened: {strangers}" if strangers else "")
    net = [call for call in calls if "connect(" in call and "AF_INET" in call]
    line.count(f"connected: {net[:3]}" if net else "")
    assert not line.lost


def test_names_of_picture_sequences_are_names(
    row: Callable[[str, int], Row], sample_raw: Path, media: ModuleType, settings: Path, tmp_path: Path
) -> None:
    """A name with %d, a star or brackets is one file: never the neighbours that it would match."""
    raw, out = tmp_path / "raw", tmp_path / "store"
    raw.mkdir()
    clips = sorted((sample_raw / "mvlrs_v1" / "main").rglob("*.mp4"))[:2]
    picture = tmp_path / "picture.jpg"
    media.ffmpeg("-i", clips[1], "-frames:v", "1", picture)
    media.ffmpeg("-i", clips[0], "-t", "1.2", "-c:v", "libx264", "-c:a", "aac", tmp_path / "clip.mp4")
    names = (
        "%03d.mp4",
        "%d.mp4",
        "%%.mp4",
        "clip%5d.mkv",
        "*.mp4",
        "[0-9].mp4",
        "{1,2}.mp4",
        "?.mp4",
        "a|b.mp4",
    )
    for name in names:
        shutil.copy(tmp_path / "clip.mp4", raw / name)
    # neighbours: pictures that an image pattern would read as a video, one of them itself under a pattern
    neighbours = [f"{number:03}.mp4" for number in range(1, 40)] + ["picture%03d.avi", "1.mp4", "2.mp4"]
    for name in neighbours:
        shutil.copy(picture, raw / name)
    code, said = run(executable("syncdiff-prep"), "folder", raw, "--out", out, "--config", settings)
    assert code == 0, said
    rejects = {r["source"] for r in pq.read_table(out / "rejects.parquet").to_pylist()}
    frames = {clip.value("source"): clip.num_frames for clip in open_dataset(out)}
    line = row("names of picture sequences", 0)
    for name in names:
        line.count("" if 25 <= frames.get(escape_path(name), 0) <= 35 else f"{name} is no row")
    for name in neighbours:
        listed = escape_path(name)
        line.count("" if listed in rejects and listed not in frames else f"{name} was not rejected")
    assert not line.lost


def with_size(jpeg_video: bytes, width: int, height: int) -> bytes:
    """A motion-JPEG file in which every picture claims another size (SOF0: FFC0, length, precision, h, w)."""
    changed, at = bytearray(jpeg_video), 0
    while (at := changed.find(b"\xff\xc0\x00\x11\x08", at)) >= 0:
        changed[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
        at += 9
    return bytes(changed)


def test_extremes(
    row: Callable[[str, int], Row],
    sample_raw: Path,
    originals: dict[str, bytes],
    media: ModuleType,
    settings: Path,
    tmp_path: Path,
) -> None:
    """Huge pictures and endless streams are rejected or bounded; odd but usable files are rows."""
    raw, out, work = tmp_path / "raw", tmp_path / "store", tmp_path / "work"
    raw.mkdir()
    work.mkdir()
    clip = sorted((sample_raw / "mvlrs_v1" / "main").rglob("*.mp4"))[0]
    cover, lines = work / "cover.jpg", work / "lines.srt"
    media.ffmpeg("-i", clip, "-frames:v", "1", cover)
    lines.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    copy = ("-t", "1.2", "-c:v", "libx264", "-c:a", "aac")
    usable = {
        "500-fps.mp4": ("-i", clip, "-vf", "fps=500", *copy),
        "sounds.mkv": ("-i", clip, "-i", clip, "-map", "0:v", "-map", "0:a", "-map", "1:a", *copy),
        "cover.mp4": ("-i", clip, "-i", cover, "-map", "0", "-map", "1", *copy, "-c:v:1", "mjpeg",
                      "-disposition:v:1", "attached_pic"),
        "cover-first.mp4": ("-i", cover, "-i", clip, "-map", "0", "-map", "1", *copy, "-c:v:0", "mjpeg",
                            "-disposition:v:0", "attached_pic"),
        "subtitles.mp4": ("-i", clip, "-i", lines, "-map", "0", "-map", "1", *copy, "-c:s", "mov_text"),
    }  # fmt: skip
    for name, arguments in usable.items():
        media.ffmpeg(*arguments, raw / name)
    picture = with_size(cover.read_bytes(), 60000, 60000)
    refused = {
        "huge.mov": with_size(originals["mov"], 60000, 60000),
        "wide.mov": with_size(originals["mov"], 65500, 16),
        "picture.mp4": picture,
        "picture.mjpeg": picture * 40,
        "picture.avi": cover.read_bytes(),
        "zeros.mp4": bytes(1 << 20),
    }
    for name, content in refused.items():
        (raw / name).write_bytes(content)
    for name, device in {"endless.mp4": "/dev/zero", "noise.mp4": "/dev/urandom"}.items():
        (raw / name).symlink_to(device)
    os.mkfifo(raw / "pipe.mp4")
    command = [executable("syncdiff-prep"), "folder", raw, "--out", out, "--config", settings]
    code, said = run(*command)
    assert code == 0, said[-2000:]
    rejects = {r["source"]: r for r in pq.read_table(out / "rejects.parquet").to_pylist()}
    frames = {clip.value("source"): clip.num_frames for clip in open_dataset(out)}
    line = row("extremes: 60000x60000, endless, 500 fps, covers", 0)
    for name in sorted(path.name for path in raw.iterdir() if path.suffix != ".mjpeg"):
        if name in usable:
            line.count("" if 25 <= frames.get(name, 0) <= 35 else f"{name}: {rejects.get(name)}")
        else:
            bad = rejects.get(name)
            fine = bad and bad["stage"] in ("list", "media", "track") and name not in frames
            line.count("" if fine else f"{name}: {bad or frames.get(name)}")
    assert not line.lost
