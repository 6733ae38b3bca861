"""What all tests share: where the optional folders are, and small helpers to make media."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # before anything imports Ray: see ray_start
# Before anything imports PyTorch: tests run side by side, one process a core, and threads that wait for one
# another on cores that are taken are many times slower than a single one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A machine that has other work exceeds Hypothesis' 200 ms an example; what hangs is ended by pytest-timeout.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

ROOT = Path(__file__).resolve().parent.parent


def _shared(name: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{name} not found beside the checkout; set {variable} to its folder")
    return folder


def _needs_real_clips(item: pytest.Item) -> bool:
    """Whether a test reads `realdata`: by that fixture, or by a parameter that names one of its files."""
    parameters = (
        item.callspec.params.values()
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else ()
    )
    named = any(str(value).endswith((".mp4", ".mpg", ".avi")) for value in parameters)
    fixtures = getattr(item, "fixturenames", ())
    return "realdata" in fixtures or (named and "real_face" in fixtures)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where the real clips are not there, each test that needs them is skipped once, not once a clip."""
    if Path(os.environ.get("SYNCDIFF_REALDATA", ROOT.parent / "shared" / "realdata")).is_dir():
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if _needs_real_clips(item):
            cases.setdefault(item.nodeid.split("[")[0], []).append(item)
    for first, *others in cases.values():
        reason = f"{1 + len(others)} case(s) need the real clips; set SYNCDIFF_REALDATA to their folder"
        first.add_marker(pytest.mark.skip(reason=reason))
        for item in others:
            items.remove(item)
        config.hook.pytest_deselected(items=others)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder with the real clips."""
    return _shared("realdata", "SYNCDIFF_REALDATA") / "videos"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with values computed by the original programs; its README says how."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def reference_weights() -> Path:
    """Folder with real weights that only tests may use (LPIPS check)."""
    return _shared("weights", "SYNCDIFF_TEST_WEIGHTS")


@pytest.fixture(scope="session")
def media() -> ModuleType:
    """The module media_factory.py, which writes media with known contents."""
    spec = importlib.util.spec_from_file_location("media_factory", ROOT / "tests" / "media_factory.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def run_prep(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `syncdiff-prep` as a user does, in a process of its own."""
    prep = Path(sys.executable).with_name("syncdiff-prep")
    done = subprocess.run([str(prep), *map(str, arguments)], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="session")
def prep() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`syncdiff-prep` with these arguments; fails the test on another exit code than 0 unless check=False."""
    return run_prep


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run, the same for all processes of pytest-xdist."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def sample_raw(shared_folder: Path) -> Path:
    """The sample data set in LRS2 layout. Tests must not change it."""
    return _made_once(shared_folder / "sample" / "raw", lambda folder: run_prep("sample", folder))


@pytest.fixture(scope="session")
def prepared_sample(sample_raw: Path) -> Path:
    """The sample data set, prepared. Tests must not change it."""
    store = sample_raw.parent / "store"
    return _made_once(store, lambda folder: run_prep("lrs2", sample_raw, "--out", folder))


def _made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """The folder, made by the first test process that asks for it; the others wait for it."""
    folder.parent.mkdir(exist_ok=True)
    whole = folder.with_name(f"{folder.name}.whole")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            make(folder)
            whole.touch()
    return folder
