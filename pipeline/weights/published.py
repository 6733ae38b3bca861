"""Weights that are not part of any package: where they are published, whether they are here, fetching them.

Nothing is downloaded unless `fetch` is called. A file is looked for in the folder named by the environment
variable SYNCDIFF_WEIGHTS, then in `~/.cache/syncdiff/weights`, then (for files that PyTorch's hub keeps) in
the hub's own folder. A file whose hash is known and differs is refused, unless the caller allows it; the
result then says `verified=False`, as it does for files whose publishers state no hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pooch
import yaml

from syncdiff.pipeline.file_hash import sha256_file

if TYPE_CHECKING:
    import requests

FOLDER_VARIABLE = "SYNCDIFF_WEIGHTS"
State = Literal["missing", "present", "verified", "differs"]


class WeightsError(Exception):
    """Weights are missing, differ from the published, or cannot be fetched; the message says what to do."""


@dataclass(frozen=True)
class WeightEntry:
    """A published file. sha256 None: its publisher states none and no independent copies were compared.

    size_bytes is for orientation. in_torch_hub: PyTorch's hub folder may hold it under the same name.
    """

    name: str
    file: str
    urls: tuple[str, ...]
    used_by: str
    licence: str
    published_at: str
    sha256: str | None = None
    size_bytes: int | None = None
    in_torch_hub: bool = False


@dataclass(frozen=True)
class WeightFile:
    """A file that is here; `sha256` is that of its bytes, `verified` whether it is the published one."""

    entry: WeightEntry
    path: Path
    sha256: str
    verified: bool


@dataclass(frozen=True)
class WeightStatus:
    """One line of the table of weights; `present` means here, and not compared with a hash."""

    entry: WeightEntry
    path: Path | None
    state: State


def registry() -> tuple[WeightEntry, ...]:
    """All weights that the project knows how to use: configs/weights.yaml."""
    entries = yaml.safe_load((files("syncdiff.configs") / "weights.yaml").read_text("utf-8"))
    return tuple(
        WeightEntry(name=name, **{**facts, "urls": tuple(facts["urls"])}) for name, facts in entries.items()
    )


def entry_named(name: str) -> WeightEntry:
    """The entry with this name or file name. Raises WeightsError for another."""
    for entry in registry():
        if name in (entry.name, entry.file):
            return entry
    raise WeightsError(f"no weights named {name!r}; there are {', '.join(e.name for e in registry())}")


def weights_folder() -> Path:
    """Where `fetch` puts files: SYNCDIFF_WEIGHTS, or the user's cache."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() if chosen else _cache_home() / "syncdiff" / "weights"


def find(name: str, *, allow_unverified: bool = False) -> WeightFile | None:
    """The file of these weights if it is here, hashed on the way; None if not.

    Raises WeightsError when only files with a wrong hash are here and `allow_unverified` is not set.
    """
    entry = entry_named(name)
    wrong: WeightsError | None = None
    for path in _present(entry):
        try:
            return verify(path, entry, allow_unverified=allow_unverified)
        except WeightsError as error:
            wrong = error
    if wrong is not None:
        raise wrong
    return None


def require(name: str, *, allow_unverified: bool = False) -> WeightFile:
    """As `find`; a missing file raises WeightsError with its origin, licence and the command to fetch it."""
    file = find(name, allow_unverified=allow_unverified)
    if file is None:
        raise WeightsError(how_to_get(entry_named(name)))
    return file


def verify(path: Path, entry: WeightEntry, *, allow_unverified: bool = False) -> WeightFile:
    """Hash the file and compare. Raises WeightsError where it differs and `allow_unverified` is not set."""
    digest = sha256_file(path)
    verified = digest == entry.sha256
    if entry.sha256 is not None and not verified and not allow_unverified:
        raise WeightsError(
            f"{path} is not the published {entry.file}: its sha256 is {digest}, published is {entry.sha256}. "
            f"Remove it and fetch it again, or allow it with --unverified-weights."
        )
    return WeightFile(entry, path, digest, verified)


def status(names: Iterable[str] | None = None, *, check: bool = False) -> list[WeightStatus]:
    """What is here and what is not; with `check`, files with a known hash are `verified` or `differs`."""
    table = []
    for entry in registry() if names is None else map(entry_named, names):
        paths = list(_present(entry))
        state: State = "present" if paths else "missing"
        path = paths[0] if paths else None
        if path and check and entry.sha256 is not None:
            right = next((path for path in paths if sha256_file(path) == entry.sha256), None)
            path, state = right or path, "verified" if right else "differs"
        table.append(WeightStatus(entry, path, state))
    return table


def how_to_get(entry: WeightEntry) -> str:
    """What a person needs to know to get a file that is not here."""
    return (
        f"{entry.file} is not here. It is needed for {entry.used_by}.\n"
        f"published at: {entry.published_at}\nlicence: {entry.licence}\n"
        f"fetch it with: syncdiff-prep weights fetch {entry.name}\n"
        f"or put the file into {weights_folder()} (or another folder named by {FOLDER_VARIABLE})"
    )


def fetch(
    entry: WeightEntry, folder: Path | None = None, *, progressbar: bool = False, timeout_s: float = 60.0
) -> WeightFile:
    """Download the file into `folder` (default `weights_folder()`), unless it is there already.

    The bytes get the file's name only when complete and, where the hash is known, right. Addresses are tried
    in order. Raises WeightsError; an existing file that differs is never overwritten.
    """
    target = (folder or weights_folder()) / entry.file
    if target.is_file():
        return verify(target, entry)
    pooch.get_logger().setLevel("ERROR")  # else it asks the person to note down the hash of what came
    download = pooch.HTTPDownloader(
        progressbar=progressbar,
        timeout=timeout_s,
        headers={"User-Agent": "syncdiff"},
        hooks={"response": _refuse_downgrade},
    )
    sha256 = None if entry.sha256 is None else f"sha256:{entry.sha256}"
    failures = []
    for url in entry.urls:
        try:
            pooch.retrieve(url, sha256, entry.file, target.parent, downloader=download)
        except OSError as error:  # those of requests are among them
            failures.append(f"{url}: {error}")
        except ValueError:
            failures.append(f"{url}: what came has another hash than was published")
        else:
            target.chmod(0o644)  # pooch leaves a file that only its owner may read
            return verify(target, entry)
    raise WeightsError("\n".join([f"{entry.file} could not be fetched:", *failures, "", how_to_get(entry)]))


def _refuse_downgrade(response: requests.Response, *_: Any, **__: Any) -> None:
    """Not every publisher states a hash: what comes unencrypted after an https address could be anyone's."""
    target = response.headers.get("Location", "")
    if response.is_redirect and response.url.startswith("https:") and target.startswith("http:"):
        raise OSError(f"redirected to an address that is not https: {target}")


def _present(entry: WeightEntry) -> Iterator[Path]:
    """Where the file is, best place first."""
    folders = [weights_folder(), _cache_home() / "syncdiff" / "weights"]
    if entry.in_torch_hub:
        hub = os.environ.get("TORCH_HOME")
        folders.append((Path(hub).expanduser() if hub else _cache_home() / "torch") / "hub" / "checkpoints")
    paths = dict.fromkeys(folder / entry.file for folder in folders)
    return (path for path in paths if path.is_file())


def _cache_home() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME")
    return Path(chosen) if chosen else Path.home() / ".cache"
