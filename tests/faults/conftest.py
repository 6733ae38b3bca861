"""Small inputs for the fault tests, their undisturbed results, and the table that is printed at the end.

SYNCDIFF_FAULTS scales the counts (1, the default, is as many as are asked for). The table is added to the
file that SYNCDIFF_FAULTS_TABLE names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from .harness import Argv, Row, executable, run

ROWS: list[Row] = []
SCALE = float(os.environ.get("SYNCDIFF_FAULTS", "1"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in Path(str(item.fspath)).parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(4 * 3600))


@pytest.fixture
def row() -> Callable[[str, int], Row]:
    """Begin a line of the table."""

    def begin(fault: str, seed: int) -> Row:
        ROWS.append(Row(fault, seed))
        return ROWS[-1]

    return begin


@pytest.fixture(scope="session")
def times() -> Callable[[int], int]:
    """How often to try: the issue's number, times SYNCDIFF_FAULTS (0.1 for a quick look)."""
    return lambda count: max(1, round(count * SCALE))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    terminalreporter.section("faults")
    width = max(len(r.fault) for r in ROWS)
    lines = [f"{'fault':{width}}  tried  survived  lost  seed"]
    for r in ROWS:
        lines.append(f"{r.fault:{width}}  {r.tried:5}  {r.survived:8}  {len(r.lost):4}  {r.seed}")
        lines += [f"    {problem}" for problem in r.lost[:5]]
    for line in lines:
        terminalreporter.write_line(line)
    if table := os.environ.get("SYNCDIFF_FAULTS_TABLE"):
        with Path(table).open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def small_raw(tmp_path_factory: pytest.TempPathFactory, sample_raw: Path, media: ModuleType) -> Path:
    """Six clips of 1.2 s in a plain folder, one of them broken."""
    raw = tmp_path_factory.mktemp("small") / "raw"
    clips = sorted((sample_raw / "mvlrs_v1" / "main").rglob("*.mp4"))[:5]
    raw.mkdir()
    for number, clip in enumerate(clips):
        media.ffmpeg("-i", clip, "-t", "1.2", "-c:v", "libx264", "-c:a", "aac", raw / f"{number}.mp4")
    (raw / "broken.mp4").write_bytes(clips[0].read_bytes()[:5000])
    return raw


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small crops and one clip a shard, so that a run has many moments worth a fault."""
    path = tmp_path_factory.mktemp("settings") / "small.yaml"
    path.write_text("face_size_px: 64\nclips_per_shard: 1\n")
    return path


@pytest.fixture(scope="session")
def prepare(small_raw: Path, settings: Path) -> Callable[[Path], Argv]:
    """The command that prepares the small clips into a folder."""

    def command(out: Path) -> Argv:
        return [executable("syncdiff-prep"), "folder", small_raw, "--out", out, "--config", settings]

    return command


@pytest.fixture(scope="session")
def small_store(prepare: Callable[[Path], Argv], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small clips, prepared undisturbed. Tests must not change it."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    code, said = run(*prepare(store))
    assert code == 0, said
    return store


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained AV-HuBERT checkpoint."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    code, said = run(executable("syncdiff-prep"), "weights", "untrained", path)
    assert code == 0, said
    return path
