"""What `syncdiff-prep doctor` finds of the machine: cores, memory, limits of the container, GPU, disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from syncdiff.pipeline.console import available_cores, bytes_text
from syncdiff.pipeline.doctor.finding import Finding
from syncdiff.pipeline.ray_start import OBJECT_STORE_BYTES

CGROUPS = Path("/sys/fs/cgroup")
# Following faces by dlib took 0.3 GB on 224x224 and 0.4 GB on 1080p clips (measured, whole process); the rest
# is Ray's part and room for what is written.
WORKER_BYTES = 1_000_000_000
FEWEST_FREE_BYTES, FEW_FREE_BYTES = 1_000_000_000, 20_000_000_000  # on disk: a try, and a small data set


def machine_findings(out: Path) -> Iterator[Finding]:
    """out: where a data set is to be written; it need not exist."""
    yield cores_finding(available_cores(), cpu_limit())
    yield memory_finding(psutil.virtual_memory().available, memory_limit(), available_cores())
    yield shared_memory_finding(Path("/dev/shm"))
    yield gpu_finding()
    yield disk_finding(out)


def cpu_limit(cgroups: Path = CGROUPS) -> float | None:
    """Cores that the container may use by its quota of time, None without one.

    Both versions of Linux's control groups: cpu.max ("<quota> <period>", "max" for none), and
    cpu.cfs_quota_us (-1 for none) with cpu.cfs_period_us.
    """
    quota, _, period = _read(cgroups / "cpu.max").partition(" ")
    if not quota:
        quota, period = (_read(cgroups / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def memory_limit(cgroups: Path = CGROUPS) -> int | None:
    """Bytes that the container may use, None without limit (version 1 states none as a number near 2**63)."""
    text = _read(cgroups / "memory.max") or _read(cgroups / "memory" / "memory.limit_in_bytes")
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None


def cores_finding(cores: int, limit: float | None) -> Finding:
    if limit is not None and limit < cores:
        advice = f"take no more than --workers {max(1, int(limit))}: more would wait for one another"
        return Finding(
            "machine", "cores", "warn", f"{cores}, of which the container may use {limit:g}", advice
        )
    return Finding("machine", "cores", "ok", f"{cores}")


def memory_finding(available: int, limit: int | None, cores: int) -> Finding:
    usable = available if limit is None else min(available, limit)
    detail = f"{bytes_text(available)} available"
    detail += "" if limit is None else f", limited to {bytes_text(limit)} by the container"
    if usable < WORKER_BYTES:
        advice = f"a worker takes up to {bytes_text(WORKER_BYTES)}: free some, or raise the limit"
        return Finding("machine", "memory", "fail", detail, advice)
    if usable < WORKER_BYTES * cores:
        advice = f"enough for --workers {usable // WORKER_BYTES}, not for all {cores} cores"
        return Finding("machine", "memory", "warn", detail, advice)
    return Finding("machine", "memory", "ok", detail)


def shared_memory_finding(folder: Path) -> Finding:
    """Ray's object store and the loaders of training share memory here; Docker gives 64 MB."""
    name = str(folder)
    if not folder.is_dir():
        return Finding("machine", name, "warn", "absent", "Ray then keeps its objects on disk, and is slower")
    total = shutil.disk_usage(folder).total
    if total < OBJECT_STORE_BYTES:
        return Finding(
            "machine", name, "warn", bytes_text(total), "start the container with --shm-size=1g or more"
        )
    return Finding("machine", name, "ok", bytes_text(total))


def gpu_finding() -> Finding:
    import torch  # takes seconds

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        text = ", ".join(f"{card.name} ({bytes_text(card.total_memory)})" for card in cards)
        return Finding("machine", "GPU", "ok", f"{text}, CUDA {torch.version.cuda}")
    if Path("/proc/driver/nvidia/version").exists():
        build = f"PyTorch {torch.__version__} was built for CUDA {torch.version.cuda or 'not at all'}"
        advice = "a driver is here: install a PyTorch build for it, and look at CUDA_VISIBLE_DEVICES"
        return Finding("machine", "GPU", "warn", f"PyTorch sees none; {build}", advice)
    return Finding("machine", "GPU", "ok", "none; everything runs on the processor, training slowly")


def disk_finding(out: Path) -> Finding:
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    name = f"disk at {out}"
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("machine", name, "fail", f"{place} cannot be written to", "choose another --out")
    free = shutil.disk_usage(place).free
    detail = f"{bytes_text(free)} free"
    if free < FEWEST_FREE_BYTES:
        return Finding("machine", name, "fail", detail, "make room, or choose another --out")
    if free < FEW_FREE_BYTES:
        advice = "little for a data set; `syncdiff-prep LAYOUT RAW --dry-run` says how much yours takes"
        return Finding("machine", name, "warn", detail, advice)
    return Finding("machine", name, "ok", detail)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
