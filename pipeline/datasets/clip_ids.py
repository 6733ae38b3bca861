"""File names as text that fits a Parquet column, and clip ids that stay unique.

POSIX file names are bytes. Python reads undecodable ones with lone surrogates (PEP 383), which Arrow's
UTF-8 strings refuse. So they are written down percent-escaped, as in URLs: an undecodable byte 0xFF becomes
`%FF` and a percent sign `%25`; everything else stays as it is. Ids also escape control characters and the
two characters that rows add to ids, `#` (k-th face) and `@` (start frame of a part).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from posixpath import splitext
from urllib.parse import unquote_to_bytes

_NOT_IN_SOURCES = re.compile("[%\ud800-\udfff]")
_NOT_IN_IDS = re.compile("[%#@\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def escape_path(path: str) -> str:
    """A path as valid UTF-8 text; `unescape_path` gives it back."""
    return _NOT_IN_SOURCES.sub(_percent, path) if not path.isascii() or "%" in path else path


def escape_for_id(path: str) -> str:
    """The same for a part of a clip id, free of `#`, `@` and control characters as well."""
    return _NOT_IN_IDS.sub(_percent, path)


def unescape_path(text: str) -> str:
    """The file name that `escape_path` or `escape_for_id` was given."""
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))


def unique_ids(prefixes: Sequence[str], names: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Clip ids, one for each file, all different.

    An id is `<prefix>/<name without suffix>`. Files that would share an id all keep their suffix (`a.mp4` and
    `a.avi` beside each other); those that still share one take their whole path from the data set's root.
    prefixes: `<layout>/<split>`; names: path within the split, with suffix; sources: path from the root, all
    different.
    """
    shorten = (lambda i: splitext(names[i])[0], lambda i: names[i], lambda i: sources[i])
    level = [0] * len(names)
    ids = [
        f"{prefix}/{escape_for_id(splitext(name)[0])}" for prefix, name in zip(prefixes, names, strict=True)
    ]
    while True:
        count = Counter(ids)
        shared = [i for i, clip_id in enumerate(ids) if count[clip_id] > 1 and level[i] < 2]
        if not shared:
            return ids
        for i in shared:
            level[i] += 1
            ids[i] = f"{prefixes[i]}/{escape_for_id(shorten[level[i]](i))}"
