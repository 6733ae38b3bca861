"""What `syncdiff-prep doctor` finds of programs: Python, packages, ffmpeg, face models, weights, Ray."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from syncdiff.pipeline.doctor.finding import Finding
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary, ffmpeg_version
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.weights.published import how_to_get, status

PYTHONS = SpecifierSet(">=3.10,<3.14")
# Beside the source; a wheel does not bring it.
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
# What data sets, evaluation and written videos need of ffmpeg, by the option that lists it.
FFMPEG_NEEDS = {
    "protocols": ("file", "pipe"),
    "decoders": ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "vp9",
                 "aac", "mp3", "pcm_s16le", "flac"),
    "encoders": ("libx264", "aac", "ffv1", "flac", "mjpeg", "pcm_s16le"),
    "muxers": ("mp4", "matroska", "mpjpeg", "rawvideo", "s16le", "framecrc"),
}  # fmt: skip
INDISPENSABLE = {"file", "pipe", "h264", "aac", "rawvideo", "s16le", "framecrc"}
RAY_TRIAL = """
from syncdiff.pipeline.ray_start import connect
connect(1, None)
from syncdiff.pipeline.ray_pool import cluster_resources
assert cluster_resources().get("CPU"), "Ray has no core"
"""
RAY_TIMEOUT_S = 120.0


def software_findings(constraints: Path | None = None, *, try_ray: bool = True) -> Iterator[Finding]:
    """constraints: versions to compare with, by default those of the tests, where the source is here."""
    yield python_finding(platform.python_version())
    yield from package_findings(constraints or CONSTRAINTS)
    yield from ffmpeg_findings()
    yield faces_finding()
    yield from weights_findings()
    if try_ray:
        yield ray_finding()


def python_finding(running: str) -> Finding:
    detail = f"{running}, {sys.executable}"
    if running not in PYTHONS:
        return Finding("software", "Python", "fail", detail, f"make an environment with Python {PYTHONS}")
    return Finding("software", "Python", "ok", detail)


def package_findings(constraints: Path) -> Iterator[Finding]:
    """Packages that are missing or older than needed, each; then how many differ from the constraints."""
    needed = [Requirement(line) for line in requires("syncdiff") or ()]
    needed = [
        package for package in needed if package.marker is None or package.marker.evaluate({"extra": ""})
    ]
    install = "pip install -c constraints.txt ."
    for package in needed:
        installed = installed_version(package.name)
        if installed is None:
            yield Finding("software", package.name, "fail", "not installed", install)
        elif not package.specifier.contains(installed, prereleases=True):
            yield Finding(
                "software", package.name, "fail", f"{installed}, needed is {package.specifier}", install
            )
    pinned = read_constraints(constraints)
    if not pinned:
        detail = f"{len(needed)} required packages; no constraints.txt to compare with"
        yield Finding("software", "packages", "ok", detail)
        return
    tested = {name: (installed_version(name), number) for name, number in pinned.items()}
    other = [
        f"{name} {ours} (tests: {theirs})"
        for name, (ours, theirs) in tested.items()
        if ours not in (None, theirs)
    ]
    if other:
        advice = f"figures may differ in their last digits; the tested versions: {install}"
        yield Finding(
            "software", "packages", "warn", "other versions than tested: " + ", ".join(other), advice
        )
    else:
        yield Finding(
            "software", "packages", "ok", f"{len(needed)} required, all in the versions of the tests"
        )


def read_constraints(path: Path) -> dict[str, str]:
    """Package -> version of a constraints file's lines `name==version ; marker` that hold for this Python."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    pinned = {}
    for line in lines:
        try:
            package = Requirement(line.split("#")[0].strip())
        except InvalidRequirement:
            continue
        versions = [part.version for part in package.specifier if part.operator == "=="]
        if versions and (package.marker is None or package.marker.evaluate()):
            pinned[package.name] = versions[0]
    return pinned


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def ffmpeg_findings() -> Iterator[Finding]:
    advice = "install ffmpeg (apt install ffmpeg), or the package imageio-ffmpeg, which brings one"
    try:
        binary = ffmpeg_binary()
        yield Finding("ffmpeg", "version", "ok", f"{ffmpeg_version(binary)}, {binary}")
        for kind, names in FFMPEG_NEEDS.items():
            yield ffmpeg_finding(kind, names, listed_by_ffmpeg(binary, kind))
    except (OSError, RuntimeError, IndexError, subprocess.SubprocessError) as error:
        yield Finding("ffmpeg", "version", "fail", f"it does not run: {error}", advice)


def ffmpeg_finding(kind: str, names: tuple[str, ...], there: set[str]) -> Finding:
    missing = [name for name in names if name not in there]
    if not missing:
        return Finding("ffmpeg", kind, "ok", ", ".join(names))
    advice = "put a full build of ffmpeg before this one on PATH; imageio-ffmpeg's is one"
    grave = INDISPENSABLE & set(missing)
    return Finding("ffmpeg", kind, "fail" if grave else "warn", f"missing: {', '.join(missing)}", advice)


def listed_by_ffmpeg(binary: str, kind: str) -> set[str]:
    """Names that `ffmpeg -decoders`, `-protocols`, … lists. Raises CalledProcessError."""
    shown = subprocess.run([binary, "-hide_banner", f"-{kind}"], capture_output=True, text=True, check=True)
    words = [line.split() for line in shown.stdout.splitlines()]
    # One name a line; codecs and formats have their abilities (`V..D.`, `E`) before it, and may list aliases.
    column = 0 if kind == "protocols" else 1
    return {name for row in words if len(row) > column for name in row[column].split(",")}


def faces_finding() -> Finding:
    """Whether OpenCV, dlib and its models load."""
    try:
        import cv2
        import dlib

        from syncdiff.pipeline.faces.dlib import DlibBackend

        DlibBackend()
    except (ImportError, ClipError) as error:
        install = "pip install dlib-bin face-recognition-models opencv-python"
        return Finding("software", "dlib and OpenCV", "fail", str(error), install)
    return Finding("software", "dlib and OpenCV", "ok", f"dlib {dlib.__version__}, OpenCV {cv2.__version__}")


def weights_findings() -> Iterator[Finding]:
    """Each file of the registry: the published one, another one, or missing (what needs it stays out)."""
    for line in status(check=True):
        entry = line.entry
        if line.state == "missing":
            advice = f"for {entry.used_by}: syncdiff-prep weights fetch {entry.name}"
            yield Finding("weights", entry.name, "warn", "not here", advice)
        elif line.state == "differs":
            advice = f"remove it; {how_to_get(entry).splitlines()[-2]}"
            yield Finding("weights", entry.name, "fail", f"{line.path}: not the published file", advice)
        else:
            hashed = "its hash is the published one" if line.state == "verified" else "no hash is published"
            yield Finding("weights", entry.name, "ok", f"{line.path}: {hashed}")


def ray_finding() -> Finding:
    """Start Ray on one core in a process of its own, as every run does."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", RAY_TRIAL],
            capture_output=True,
            text=True,
            timeout=RAY_TIMEOUT_S,
            check=False,
        )
        problem = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired:
        problem = [f"no answer after {RAY_TIMEOUT_S:.0f} s"]
    if problem or done.returncode:
        advice = "a firewall or proxy that closes the loopback address, a full /tmp, or too little memory"
        return Finding(
            "software", "Ray", "fail", "; ".join(problem) or f"exit code {done.returncode}", advice
        )
    return Finding(
        "software", "Ray", "ok", f"{installed_version('ray')} starts and answers on the loopback address"
    )
