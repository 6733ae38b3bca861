"""What a pickle may name, and what becomes of it: the policy behind `syncdiff.pipeline.avhubert.unpickle`.

Plain containers are rebuilt, tensors become descriptions (`TensorRef`), objects of other classes are recorded
as `Inert`. Functions, and all of the standard library but a few harmless names, are refused.
Nothing is imported.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_DIMENSIONS = 16

# Names that modules have in pickles of other Python versions: Python 2, and of paths Python 3.13.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "_operator": "operator",
    "pathlib._local": "pathlib",
}

# What a checkpoint may name of the standard library; anything else there is refused wherever it appears.
_STANDARD_NAMES: dict[str, frozenset[str]] = {
    "builtins": frozenset(
        {
            "bool",
            "bytearray",
            "bytes",
            "complex",
            "dict",
            "float",
            "frozenset",
            "int",
            "list",
            "long",
            "object",
        }
        | {"range", "set", "slice", "str", "tuple", "unicode"}
    ),
    "_codecs": frozenset({"encode"}),
    "argparse": frozenset({"Namespace"}),
    "collections": frozenset({"Counter", "OrderedDict", "defaultdict", "deque"}),
    "copyreg": frozenset({"_reconstructor"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta", "timezone"}),
    "decimal": frozenset({"Decimal"}),
    "operator": frozenset({"getitem"}),  # how Python pickles List[str]; see _reduce_getitem
    "pathlib": frozenset(
        {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"}
    ),
    "types": frozenset({"SimpleNamespace"}),
    "typing": frozenset(
        {"Any", "Dict", "FrozenSet", "List", "Literal", "Optional", "Sequence", "Set", "Tuple", "Union"}
    ),
    "uuid": frozenset({"UUID"}),
}
# Functions of NumPy and PyTorch that make data only; they are recorded, not called.
_RECORDED_FUNCTIONS = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("torch", "device"),
        ("torch", "Size"),
    }
)


class UnpickleError(ValueError):
    """The pickle is damaged, of a kind that is not read here, or asks for more than data."""


class UnsafePickleError(UnpickleError):
    """The pickle asks to run code."""


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names. It is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """An object of a class that is not loaded: what the pickle would have given to that class, no more."""

    cls: Global
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StorageRef:
    """A block of `numel` numbers outside the pickle; `type_name` is PyTorch's, such as FloatStorage."""

    key: str
    type_name: str
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A strided view of a storage, in elements, checked to lie inside it and not to overlap itself."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def storage_id(identifier: tuple[Any, ...]) -> StorageRef:
    """PyTorch's ("storage", type, key, device, numel[, view]) as a `StorageRef`; raises UnpickleError."""
    fits = len(identifier) >= 5 and identifier[0] == "storage" and isinstance(identifier[1], Global)
    if not fits or type(identifier[2]) is not str or type(identifier[4]) is not int or identifier[4] < 0:
        raise UnpickleError("the pickle refers to outside data in a way that PyTorch does not")
    if len(identifier) > 5 and identifier[5] is not None:
        raise UnpickleError("storage views, written by PyTorch before 0.4, are not read")
    if not identifier[1].module.startswith("torch"):
        raise UnpickleError(f"{identifier[1]} is no PyTorch storage")
    return StorageRef(identifier[2], identifier[1].name, identifier[4])


def find_global(module: str, name: str) -> Global:
    module = _RENAMED.get(module, module)
    standard = module.partition(".")[0] in sys.stdlib_module_names
    if standard and name not in _STANDARD_NAMES.get(module, ()):
        raise UnsafePickleError(
            f"the pickle names {module}.{name}, which no checkpoint needs: it may be an attack"
        )
    return Global(module, name)


def safe_key(value: Any) -> Any:
    """A dictionary key or set member that is safe to hash: deeply nested tuples overflow the C stack."""
    scalars = (str, int, float, bool, bytes, complex, type(None), Global, Inert, StorageRef, TensorRef)
    if isinstance(value, scalars) or (
        type(value) is tuple and all(isinstance(item, scalars) for item in value)
    ):
        return value
    raise UnpickleError(f"a dictionary key of type {type(value).__name__}")


def safe_pairs(items: list[Any]) -> dict[Any, Any]:
    return {safe_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def make_instance(cls: Any, args: Any) -> Any:
    if not isinstance(cls, Global) or type(args) is not tuple:
        raise UnsafePickleError("the pickle makes an object of something that is no class")
    if (cls.module, cls.name) in _REBUILD:
        return _REBUILD[cls.module, cls.name](*args)
    return Inert(cls, args)


def reduce_call(function: Any, args: Any) -> Any:
    """What `function(*args)` stands for. By Python's naming rules a capital begins a class, whose objects are
    recorded; of functions only those with a meaning known here pass."""
    if not isinstance(function, Global) or type(args) is not tuple:
        raise UnsafePickleError("the pickle calls something that is no class")
    identity = (function.module, function.name)
    if identity in _REBUILD or identity in _RECORDED_FUNCTIONS:
        return make_instance(function, args)
    is_class = function.name.rpartition(".")[2].lstrip("_")[:1].isupper()
    if is_class or function.module.partition(".")[0] in _STANDARD_NAMES:
        return Inert(function, args)
    raise UnsafePickleError(f"the pickle asks to call {function}: it may be an attack")


def _dict_of(*args: Any) -> dict[Any, Any]:
    source = args[0] if args else {}
    if type(source) is dict:
        return dict(source)
    return {safe_key(key): value for key, value in source}


def _reduce_getitem(*args: Any) -> Inert:
    if len(args) != 2 or not isinstance(args[0], Global | Inert):
        raise UnsafePickleError("the pickle asks to call operator.getitem on something that is no type")
    return Inert(Global("operator", "getitem"), args)


def _reduce_object(*args: Any) -> Any:
    """copyreg._reconstructor(cls, base, state), how pickle protocols 0 and 1 make objects."""
    return make_instance(args[0], tuple(args[2:]))


def _encode(*args: Any) -> bytes:
    """Bytes as Python 2's protocols carry them: text in Latin-1."""
    if not args or type(args[0]) is not str or args[1:] not in ((), ("latin1",), ("latin-1",)):
        raise UnpickleError("bytes in an unknown encoding")
    return args[0].encode("latin-1")


def _numpy_scalar(*args: Any) -> Any:
    """numpy.core.multiarray.scalar(dtype, bytes) as a Python number."""
    dtype, data = args
    code = dtype.args[0] if isinstance(dtype, Inert) and dtype.args else None
    formats = {
        "b1": "?",
        "i1": "b",
        "i2": "h",
        "i4": "i",
        "i8": "q",
        "u1": "B",
        "u2": "H",
        "u4": "I",
        "u8": "Q",
    }
    formats |= {"f2": "e", "f4": "f", "f8": "d"}
    if not isinstance(code, str) or code.lstrip("<>=|") not in formats or type(data) is not bytes:
        raise UnpickleError("a NumPy number of an unknown kind")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else code[:1]
    return struct.unpack((">" if order == ">" else "<") + formats[code.lstrip("<>=|")], data)[0]


def _tensor(*args: Any) -> TensorRef:
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...), checked as `TensorRef` says."""
    if len(args) < 4 or not isinstance(args[0], StorageRef):
        raise UnpickleError("a tensor without a storage")
    storage, offset, shape, stride = args[:4]
    numbers = (offset, *shape, *stride)
    if any(type(number) is not int or number < 0 for number in numbers) or len(shape) != len(stride):
        raise UnpickleError("a tensor whose size or stride makes no sense")
    if len(shape) > MAX_DIMENSIONS:
        raise UnpickleError(f"a tensor of {len(shape)} dimensions")
    if math.prod(shape):
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if last >= storage.numel:
            raise UnpickleError(
                f"a tensor of size {shape} reaches beyond its storage of {storage.numel} numbers"
            )
        if _overlaps(shape, stride):
            raise UnpickleError(f"a tensor of size {shape} and stride {stride} overlaps itself")
    return TensorRef(storage, offset, tuple(shape), tuple(stride))


def _overlaps(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether two indices may meet: not if, by rising stride, each step clears all smaller ones together."""
    reach = 0
    for step, size in sorted((step, size) for size, step in zip(shape, stride, strict=True) if size > 1):
        if step <= reach:
            return True
        reach += (size - 1) * step
    return False


def _unwrap(*args: Any) -> TensorRef:
    """torch._utils._rebuild_parameter(tensor, ...): a parameter is its tensor."""
    if not args or not isinstance(args[0], TensorRef):
        raise UnpickleError("a parameter without a tensor")
    return args[0]


def _collected(kind: type) -> Callable[..., Any]:
    def rebuild(*args: Any) -> Any:
        items = args[0] if args else ()
        if not isinstance(items, list | tuple | set | frozenset | dict):
            raise UnpickleError(f"a {kind.__name__} of something that is no container")
        return kind(safe_key(item) for item in items) if kind in (set, frozenset) else kind(items)

    return rebuild


_REBUILD: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _unwrap,
    ("torch._utils", "_rebuild_parameter_with_state"): _unwrap,
    ("collections", "OrderedDict"): _dict_of,
    ("collections", "Counter"): _dict_of,
    ("collections", "defaultdict"): lambda *args: {},  # its factory is dropped; entries follow by SETITEMS
    ("builtins", "dict"): _dict_of,
    ("builtins", "list"): _collected(list),
    ("builtins", "tuple"): _collected(tuple),
    ("builtins", "set"): _collected(set),
    ("builtins", "frozenset"): _collected(frozenset),
    ("copyreg", "_reconstructor"): _reduce_object,
    ("operator", "getitem"): _reduce_getitem,
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}
