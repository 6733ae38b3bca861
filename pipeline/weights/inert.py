"""Reads an untrusted checkpoint without running anything in it; `torch_file` runs this as a process.

PyTorch's restricted unpickler (`weights_only`) calls nothing but what rebuilds tensors. The classes of others
(fairseq's, omegaconf's) are stood in for by classes made here, which keep what they are given.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import resource
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from syncdiff.pipeline.records import CheckpointError

MAX_CONFIG_VALUES = 200_000  # bounds a configuration that holds itself over and over

_PATHS = "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"
# What a checkpoint may name of the standard library, and functions elsewhere that make mere data.
_HARMLESS = {
    "_codecs": "encode",  # bytes in pickle protocol 2
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "argparse": "Namespace",
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "numpy": "dtype ndarray",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.multiarray": "_reconstruct scalar",
    "operator": "getitem",  # List[str] is pickled as a call of it
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,  # Python 3.13
    "types": "SimpleNamespace",
    "typing": "Any Dict FrozenSet List Literal Optional Sequence Set Tuple Union",
    "uuid": "UUID",
}
_PYTHON_2 = {"long": "int", "unicode": "str", "xrange": "range"}


class Inert:
    """An object of a class that is not loaded, with what the pickle would have given to that class."""

    path = ""  # the class's own
    callable = True
    args: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *args: Any) -> Inert:
        if not cls.callable:
            raise CheckpointError(f"asks to call {cls.path}: it may be an attack")
        self = super().__new__(cls)
        self.args = args
        return self

    def __init__(self, *args: Any) -> None:
        """Accepts what `__new__` has kept."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def rewrite(path: Path, answer: Path) -> None:
    """Writes tensors, names, configuration and kind of a checkpoint to a `.safetensors` file.

    Raises CheckpointError, whose sentence lacks the file's name, for whatever goes wrong with it.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        content = _load(path, _names_in_zip(path) if zipped else _names_in_stream(path))
        state = _state_dict(content)
        if sum(tensor.nbytes for tensor in state.values()) > 2 * path.stat().st_size:  # 2: for shared numbers
            raise CheckpointError("is damaged or an attack: its tensors claim more numbers than it holds")
        config = plain(content.get("cfg") or content.get("args") or {}, iter(range(MAX_CONFIG_VALUES)))
        about = {
            "names": list(state),  # in their order, which safetensors does not keep
            "config": config if isinstance(config, dict) else {},
            "vocabulary": _vocabulary(content),
            "kind": "torch-zip" if zipped else "torch-legacy",
        }
        numbered = {
            str(i): t.detach().clone(memory_format=torch.contiguous_format)
            for i, t in enumerate(state.values())
        }
        save_file(numbered, answer, metadata={"about": json.dumps(about)})
    except CheckpointError:
        raise
    except MemoryError:
        raise CheckpointError("is damaged or an attack: it asks for far more memory than its size") from None
    except RecursionError:
        raise CheckpointError("is nested too deeply or refers to itself") from None
    except Exception as error:  # whatever a damaged file makes zipfile, pickletools and PyTorch raise
        # PyTorch puts advice to trust the file before its reason, and a C++ stack behind it
        reason = re.sub(r"(?s)^Weights only.*?(WeightsUnpickler error:|\n\n)\s*", "", str(error)).strip()
        reason = re.split(r"\n|\s*\(Could this", reason)[0][:200] or type(error).__name__
        raise CheckpointError(f"cannot be read as a PyTorch checkpoint: {reason}") from error


def plain(value: Any, budget: Iterator[int]) -> Any:
    """A configuration as dicts with text keys, lists, text and numbers.

    omegaconf's containers and nodes and argparse's Namespace become what they hold, other objects their
    attributes, and what has none the name of its class. Raises CheckpointError where it holds more values
    than `budget`, RecursionError where it refers to itself.
    """
    if next(budget, None) is None:
        raise CheckpointError("has a configuration that is too large")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Inert):
        return plain(_inside(value), budget)
    if isinstance(value, dict):
        return {str(key): plain(item, budget) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, budget) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item, budget) for item in value), key=str)
    if isinstance(value, Tensor):
        return f"tensor of size {list(value.shape)}"
    return value.path if isinstance(value, type) and issubclass(value, Inert) else str(value)


def _inside(value: Inert) -> Any:
    """What an object that was not loaded holds, in plain terms."""
    if isinstance(value.state, dict):
        if value.path.startswith("omegaconf."):
            for key in ("_content", "content", "_val"):  # containers since 2.0, containers before, nodes
                if key in value.state:
                    return value.state[key]
        return value.state
    if value.path.startswith("pathlib"):
        return "/".join(str(part) for part in value.args)
    if value.path.endswith("multiarray.scalar"):
        dtype, data = value.args
        return np.frombuffer(data, np.dtype(dtype.args[0]).newbyteorder(dtype.state[1]))[0].item()
    if len(value.args) == 1 and isinstance(value.args[0], str | int | float):  # a member of an enumeration
        return value.args[0]
    return value.path


def _load(path: Path, names: set[tuple[str, str]]) -> Any:
    stand_ins: dict[str, Any] = {
        f"{module}.{name}": _stand_in(module, name) for module, name in sorted(names)
    }
    stand_ins |= {"builtins.frozenset": frozenset, "collections.defaultdict": lambda *factory: {}}
    with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in stand_ins.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _stand_in(module: str, name: str) -> type[Inert]:
    """PyTorch asks for it only where it has nothing of its own under that name."""
    harmless = name in _HARMLESS.get(module, "").split()
    if not harmless and module.partition(".")[0] in sys.stdlib_module_names:
        raise CheckpointError(f"names {module}.{name}, which no checkpoint needs: it may be an attack")
    last = name.rpartition(".")[2]
    is_class = last.lstrip("_")[:1].isupper()  # by Python's naming rules
    return type(last, (Inert,), {"path": f"{module}.{name}", "callable": harmless or is_class})


def _names_in_zip(path: Path) -> set[tuple[str, str]]:
    """What the pickle in an archive names; raises CheckpointError for an archive that is not torch.save's."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError("is a zip archive, but not one that torch.save wrote (no data.pkl in it)")
        if pickles[0].replace("data.pkl", "constants.pkl") in archive.namelist():
            raise CheckpointError("is a TorchScript program, not a checkpoint")
        if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in archive.infolist()):
            raise CheckpointError("is compressed or encrypted, which torch.save never does")
        if damaged := archive.testzip():
            raise CheckpointError(f"is damaged: the checksum (CRC) of {damaged} does not fit")
        return set(_names(io.BytesIO(archive.read(pickles[0]))))


def _names_in_stream(path: Path) -> set[tuple[str, str]]:
    """What the pickles of the older format name: magic number, protocol, machine, content, storage keys."""
    with path.open("rb") as file:
        numbers = [argument for opcode, argument, _ in pickletools.genops(file) if opcode.name == "LONG1"]
        if numbers != [torch.serialization.MAGIC_NUMBER]:
            raise CheckpointError("is a pickle, but not one that torch.save wrote")
        return {name for _ in range(4) for name in _names(file)}


def _names(file: BinaryIO) -> Iterator[tuple[str, str]]:
    opcode: Any
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = argument.partition(" ")
            if module == "__builtin__":  # protocol 2 has Python 2's names, which PyTorch translates likewise
                module, name = "builtins", _PYTHON_2.get(name, name)
            yield module, name
        elif opcode.name == "PROTO" and argument > 2:
            raise CheckpointError(
                f"is pickled in protocol {argument}; PyTorch's own, 2, alone is read safely"
            )


def _state_dict(content: Any) -> dict[str, Tensor]:
    """Under `model` in fairseq's files, elsewhere under another name or the whole content."""
    if isinstance(content, Inert):
        raise CheckpointError(f"holds an object of the class {content.path}, not a state dict")
    if isinstance(content, dict):
        preferred = [content.get(key) for key in ("model", "state_dict", "model_state_dict")]
        for candidate in [*preferred, content, *content.values()]:
            items = candidate.items() if isinstance(candidate, dict) else ()
            state = {n: t for n, t in items if isinstance(n, str) and isinstance(t, Tensor)}
            if state:
                return state
    raise CheckpointError("holds no tensors by name")


def _vocabulary(content: Any) -> list[str]:
    """The symbols of the `Dictionary` that fairseq keeps with a task fine-tuned to words; none elsewhere."""
    task = content.get("task_state")
    dictionary = task.get("target_dictionary") if isinstance(task, dict) else None
    attributes = dictionary.state if isinstance(dictionary, Inert) else None
    symbols = attributes.get("symbols") if isinstance(attributes, dict) else None
    return symbols if isinstance(symbols, list) and all(isinstance(symbol, str) for symbol in symbols) else []


def main(path: str, answer: str, memory_bytes: str) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":  # elsewhere the system does not keep to it
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(memory_bytes),) * 2)
    try:
        rewrite(Path(path), Path(answer))
    except CheckpointError as refusal:
        sys.stdout.write(str(refusal))
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
