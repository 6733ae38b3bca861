"""Reads pickles as data: no name in them is imported, nothing in them is called.

`pickle.load` runs whatever a file asks for, and even a subclass with a `find_class` of its own lets a file
call and change the classes it is given. This is a small machine for the pickle opcodes instead: their meaning
is that of CPython's `pickletools`, what names stand for is decided in `pickle_objects`.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from syncdiff.pipeline.avhubert.pickle_objects import (
    Inert,
    TensorRef,
    UnpickleError,
    UnsafePickleError,
    find_global,
    make_instance,
    reduce_call,
    safe_key,
    safe_pairs,
)

MAX_PROTOCOL = 5
MAX_OPCODES = 5_000_000  # a published AV-HuBERT checkpoint has some ten thousand


class Stream(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...

    def readline(self) -> bytes: ...

    def tell(self) -> int: ...


PersistentLoad: TypeAlias = Callable[[tuple[Any, ...]], Any]


def unpickle(stream: Stream, persistent_load: PersistentLoad | None = None) -> Any:
    """The object pickled at the stream's position, as plain data; leaves the stream behind the pickle.

    `persistent_load` gets the tuples by which a container refers to data outside the pickle. Raises
    `UnsafePickleError` for a pickle that asks to run code, `UnpickleError` for a damaged or unreadable one.
    """
    machine = _Machine(persistent_load)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
            if count >= MAX_OPCODES:
                raise UnpickleError(f"more than {MAX_OPCODES} pickle operations")
            machine.step(opcode.name, argument)
    except UnpickleError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error) as error:
        # pickletools raises ValueError on truncated or unknown opcodes; the machine the others on an empty
        # stack, a missing memo entry or operands of the wrong kind
        raise UnpickleError(f"the pickle is damaged ({error})") from error
    return machine.result


class _Machine:
    """The state of one unpickling: a stack, the stacks below its marks, and the memo."""

    def __init__(self, persistent_load: PersistentLoad | None) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None
        self.persistent_load = persistent_load

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        else:
            raise UnpickleError(f"pickle operation {name} is not read here")

    def check_protocol(self, version: int) -> None:
        if version > MAX_PROTOCOL:
            raise UnpickleError(f"pickle protocol {version} is not known here")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def pop_last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def stop(self) -> None:
        self.result = self.stack.pop()

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(items)
        elif type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(safe_key(item) for item in items)
        else:
            raise UnpickleError("the pickle appends to something that is no list")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Inert) else target
        if type(entries) is not dict:
            raise UnpickleError("the pickle sets keys of something that is no dictionary")
        entries.update(safe_pairs(items))

    def find_global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise UnpickleError("the pickle names a class by something that is no text")
        self.stack.append(find_global(module, name))

    def new_object(self, cls: Any, args: Any) -> None:
        self.stack.append(make_instance(cls, args))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict | list | set | TensorRef):
            raise UnsafePickleError(
                f"the pickle changes {target}, which it did not make: it may be an attack"
            )
        # attributes of containers and tensors (a state dict's _metadata) say nothing about the numbers

    def persistent(self, identifier: Any) -> None:
        if self.persistent_load is None or type(identifier) is not tuple:
            raise UnpickleError("the pickle refers to data outside itself")
        self.stack.append(self.persistent_load(identifier))


_LITERALS = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
    }
    | {"SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE"}
    | {"SHORT_BINUNICODE", "BINUNICODE8"}
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
# `m` is the machine, `a` the opcode's own argument. Extension codes, out-of-band buffers and whatever a later
# protocol adds are left out, and so refused.
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, a: m.check_protocol(a),
    "FRAME": lambda m, a: None,
    "MARK": lambda m, a: m.mark(),
    "STOP": lambda m, a: m.stop(),
    "POP": lambda m, a: m.pop(),
    "POP_MARK": lambda m, a: _drop(m),
    "DUP": lambda m, a: m.push(m.stack[-1]),
    "PUT": lambda m, a: m.put(a),
    "BINPUT": lambda m, a: m.put(a),
    "LONG_BINPUT": lambda m, a: m.put(a),
    "MEMOIZE": lambda m, a: m.put(None),
    "GET": lambda m, a: m.push(m.memo[a]),
    "BINGET": lambda m, a: m.push(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.push(m.memo[a]),
    "LIST": lambda m, a: m.push(m.pop_mark()),
    "DICT": lambda m, a: m.push(safe_pairs(m.pop_mark())),
    "FROZENSET": lambda m, a: m.push(frozenset(map(safe_key, m.pop_mark()))),
    "TUPLE": lambda m, a: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m, a: m.push(tuple(m.pop_last(1))),
    "TUPLE2": lambda m, a: m.push(tuple(m.pop_last(2))),
    "TUPLE3": lambda m, a: m.push(tuple(m.pop_last(3))),
    "APPEND": lambda m, a: m.append(m.pop_last(1)),
    "APPENDS": lambda m, a: m.append(m.pop_mark()),
    "ADDITEMS": lambda m, a: m.append(m.pop_mark()),
    "SETITEM": lambda m, a: m.set_items(m.pop_last(2)),
    "SETITEMS": lambda m, a: m.set_items(m.pop_mark()),
    "GLOBAL": lambda m, a: m.find_global(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.find_global(*m.pop_last(2)),
    "REDUCE": lambda m, a: m.push(reduce_call(*m.pop_last(2))),
    "NEWOBJ": lambda m, a: m.new_object(*m.pop_last(2)),
    "NEWOBJ_EX": lambda m, a: m.new_object(*m.pop_last(3)[:2]),
    "INST": lambda m, a: m.new_object(find_global(*a.split(" ", 1)), tuple(m.pop_mark())),
    "OBJ": lambda m, a: _old_object(m),
    "BUILD": lambda m, a: m.build(),
    "PERSID": lambda m, a: m.persistent(a),
    "BINPERSID": lambda m, a: m.persistent(m.stack.pop()),
}


def _drop(machine: _Machine) -> None:
    machine.pop_mark()


def _old_object(machine: _Machine) -> None:
    cls, *args = machine.pop_mark()
    machine.new_object(cls, tuple(args))
