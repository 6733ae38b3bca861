"""One line of what `syncdiff-prep doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """topic: its group. detail: what is here. advice: what to do, "" where nothing is to be done.

    state "fail": the commands cannot work; "warn": something does not, or not as fast or exactly as it could.
    """

    topic: str
    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    advice: str = ""
