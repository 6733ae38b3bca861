"""Limits of a container are read from its control groups; what is too little is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncdiff.pipeline.doctor.machine import (
    FEWEST_FREE_BYTES,
    WORKER_BYTES,
    cores_finding,
    cpu_limit,
    disk_finding,
    memory_finding,
    memory_limit,
    shared_memory_finding,
)


def test_limits_of_both_versions_of_control_groups(tmp_path: Path):
    assert cpu_limit(tmp_path) is None and memory_limit(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "memory").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "memory/memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
    assert cpu_limit(tmp_path) == 1.5 and memory_limit(tmp_path) is None
    (tmp_path / "memory/memory.limit_in_bytes").write_text("1000000\n")
    assert memory_limit(tmp_path) == 1_000_000
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert cpu_limit(tmp_path) is None and memory_limit(tmp_path) is None
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    (tmp_path / "memory.max").write_text("8000000000\n")
    assert cpu_limit(tmp_path) == 4.0 and memory_limit(tmp_path) == 8_000_000_000


def test_more_cores_than_the_quota_allows():
    assert cores_finding(8, None).state == cores_finding(8, 8.0).state == "ok"
    finding = cores_finding(8, 2.5)
    assert finding.state == "warn" and "--workers 2" in finding.advice


@pytest.mark.parametrize(
    ("available", "limit", "state"),
    [
        (10 * WORKER_BYTES, None, "ok"),
        (10 * WORKER_BYTES, 2 * WORKER_BYTES, "warn"),
        (WORKER_BYTES // 2, None, "fail"),
        (10 * WORKER_BYTES, WORKER_BYTES // 2, "fail"),
    ],
)
def test_memory_by_what_workers_take(available: int, limit: int | None, state: str):
    finding = memory_finding(available, limit, cores=4)
    assert finding.state == state
    assert bool(finding.advice) == (state != "ok")


def test_no_shared_memory(tmp_path: Path):
    assert shared_memory_finding(tmp_path / "none").state == "warn"


def test_a_disk_that_is_full_or_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = type("Usage", (), {"free": FEWEST_FREE_BYTES - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert disk_finding(tmp_path / "not" / "yet").state == "fail"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    finding = disk_finding(tmp_path / "not" / "yet")
    assert finding.state == "fail" and "cannot be written" in finding.detail
