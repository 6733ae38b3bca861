"""Starts a command before the packages it is made of are loaded."""

from __future__ import annotations

import signal
from importlib import import_module


def start(module: str, function: str = "main") -> None:
    """Load a module and run its command. Loading takes seconds, and Ctrl-C then ends the process at once:
    an exception within somebody's import would only print a traceback.
    """
    interrupt = signal.getsignal(signal.SIGINT)  # ignored, where a shell started us in the background
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = getattr(import_module(module), function)
    signal.signal(signal.SIGINT, interrupt)
    command()
