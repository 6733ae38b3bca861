"""The versions that decide a data set's bytes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import soundfile

from syncdiff.pipeline.ffmpeg_process import ffmpeg_version

_PACKAGES = ("syncdiff", "dlib-bin", "numpy", "opencv-python", "pyarrow", "scipy", "soundfile")


def package_version(name: str) -> str:
    """Installed version of a package, or "absent"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def versions() -> dict[str, str]:
    """Program -> version, for everything between a video and its shard."""
    found = {name: package_version(name) for name in _PACKAGES}
    return {**found, "ffmpeg": ffmpeg_version(), "libsndfile": str(soundfile.__libsndfile_version__)}
