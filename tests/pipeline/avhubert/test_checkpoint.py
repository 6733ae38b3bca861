"""Checkpoints are read without running anything in them, and what cannot be read says why."""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import os
import pickle
import re
import struct
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from syncdiff.pipeline.avhubert.checkpoint import (
    Checkpoint,
    convert,
    find_encoder,
    read_checkpoint,
    save_safetensors,
    tensors_sha256,
)
from syncdiff.pipeline.records import CheckpointError
from syncdiff.pipeline.weights import inert, torch_file

GOLDEN = ["tiny_pretrained_plain_cfg.pt", "tiny_pretrained_omegaconf_cfg.pt", "tiny_finetuned_seq2seq.pt"]


def refusal(path: Path) -> str:
    """What the reading process says to a file; asked in this process, for a new one takes seconds."""
    with pytest.raises(CheckpointError) as refused:
        inert.rewrite(path, path.with_name("answer.safetensors"))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def container(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A zip container as torch.save writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def pickled_tensor(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...], numel: int = 6, more: bytes = b""
) -> bytes:
    """{"w": tensor} with any geometry, over a storage "0" of float32; `more` are opcodes behind it."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            arguments = (Storage(), offset, size, stride, False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Storage):
                return "storage", torch.FloatStorage, "0", "cpu", numel
            return None

    stream = io.BytesIO()
    Pickler(stream, 2).dump({"w": Tensor()})
    return stream.getvalue()[:-1] + more + b"."


def stand_in(module: str, name: str, *args: Any, state: Any = None) -> inert.Inert:
    """What becomes of an object of this class."""
    made = inert._stand_in(module, name)(*args)
    made.state = state
    return made


# --- what is read ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def originals(golden: Path) -> dict[str, Checkpoint]:
    return {name: read_checkpoint(golden / "avhubert" / name) for name in GOLDEN}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_containers_load_as_torch_reads_their_tensors(
    originals: dict[str, Checkpoint], name: str
) -> None:
    checkpoint = originals[name]
    assert checkpoint.kind == "torch-zip"
    assert checkpoint.name == name
    assert len(checkpoint.sha256) == 64
    json.dumps(checkpoint.config)  # plain
    encoder = find_encoder(checkpoint)
    assert encoder.model["encoder_layers"] == 3
    assert encoder.model["modality_fuse"] == "concat"
    assert encoder.model["layer_norm_first"] is True
    assert encoder.task["normalize"] is True
    assert encoder.task["modalities"] == ["audio", "video"]
    assert encoder.state["encoder.layers.2.fc1.weight"].shape == (128, 64)
    assert not checkpoint.untrained


def test_golden_containers_hold_the_same_encoder(originals: dict[str, Checkpoint]) -> None:
    first, *others = map(find_encoder, originals.values())
    for other in others:
        assert other.model == first.model
        assert other.task == first.task
        for name in other.state:
            assert torch.equal(other.state[name], first.state[name])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_own_containers_equal_torch_load(tmp_path: Path, zipped: bool) -> None:
    shared = torch.arange(12.0)
    state = {
        "transposed": torch.arange(6).reshape(2, 3).t(),
        "half": torch.randn(3, 1, 2).half(),
        "brain": torch.randn(5).bfloat16(),
        "bool": torch.tensor([True, False]),
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
        "scalar": torch.tensor(7, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "head": shared[:5],
        "tail": shared[5:],
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
    args = argparse.Namespace(encoder_layers=2, names=["a", "b"], rate=0.5, path=Path("a/b"))
    content = {
        "model": collections.OrderedDict(state),
        "args": args,
        "extra": {1: {"x"}, "n": np.float64(2.5)},
    }
    path = tmp_path / "own.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    assert checkpoint.kind == ("torch-zip" if zipped else "torch-legacy")
    assert checkpoint.config == {"encoder_layers": 2, "names": ["a", "b"], "rate": 0.5, "path": "a/b"}
    assert list(checkpoint.state) == list(state)
    for name, tensor in state.items():
        assert checkpoint.state[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.state[name], tensor)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_bare_state_dict_is_read(tmp_path: Path, zipped: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 1), torch.nn.BatchNorm1d(3))
    torch.save(network.state_dict(), tmp_path / "net.model", _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(tmp_path / "net.model")
    assert checkpoint.state.keys() == network.state_dict().keys()
    assert checkpoint.config == {}


def test_plain_data_comes_out_as_python_wrote_it(tmp_path: Path) -> None:
    repeated = [1]
    config = {
        "text": "é\n'", "int": -(2**70), "float": 1.5, "none": None, "bool": [True, False],
        "tuple": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "set": {1, 2}, "frozen": frozenset({3}),
        "ordered": collections.OrderedDict(a=1), "default": collections.defaultdict(list, {"a": [1]}),
        "paths": [Path("a/b")], "numpy": [np.float64(2.5), np.int16(-3), np.bool_(True)],
        "types": [int, argparse.Namespace], "tensor": torch.ones(2), "same": [repeated, repeated], 3: 4,
    }  # fmt: skip
    torch.save({"model": {"w": torch.ones(1)}, "cfg": config}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt").config == {
        "text": "é\n'", "int": -(2**70), "float": 1.5, "none": None, "bool": [True, False],
        "tuple": [[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4]], "set": [1, 2], "frozen": [3],
        "ordered": {"a": 1}, "default": {"a": [1]},
        "paths": ["a/b"], "numpy": [2.5, -3, True],
        "types": ["builtins.int", "argparse.Namespace"], "tensor": "tensor of size [2]",
        "same": [[1], [1]], "3": 4,
    }  # fmt: skip


# --- pickles that try to run code -----------------------------------------------------------------


class Call:
    """Pickles as a call of `function(*arguments)`, with an optional state for BUILD."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


def attacks(marker: str) -> dict[str, bytes]:
    """Pickles that would create the file `marker`, each in its own way."""
    command = f"touch {marker}"
    code = f"open({marker!r}, 'w')"
    line = marker.encode()
    inner = pickle.dumps(Call(os.system, command))
    return {
        "os.system": pickle.dumps(Call(os.system, command)),
        "protocol 0": pickle.dumps(Call(os.system, command), protocol=0),
        "subprocess.Popen": pickle.dumps(Call(subprocess.Popen, ["touch", marker])),
        "builtins.eval": pickle.dumps(Call(eval, code)),
        "builtins.exec": pickle.dumps(Call(exec, code)),
        "getattr": b"cbuiltins\ngetattr\n(cos\npath\nVos\ntR.",
        "__import__": b"c__builtin__\n__import__\n(Vos\ntR.",
        "nested in a state dict": pickle.dumps({"model": {"w": [1, (2, {"x": Call(os.system, command)})]}}),
        "as a dictionary key": pickle.dumps({"model": {(1, 2): Call(os.system, command)}}),
        "INST": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(]X\x05\x00\x00\x00touchaX"
        + struct.pack("<I", len(line))
        + line
        + b"at\x81.",
        "BUILD sets a method": (
            b"\x80\x02cargparse\nNamespace\n}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb0."
        ),
        "BUILD on a class": b"\x80\x02cargparse\nNamespace\n}X\x08\x00\x00\x00__call__K\x01sb.",
        "BUILD on a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
        "numpy.load": b"cnumpy\nload\n(S'" + line + b"'\ntR.",
        "torch.load of bytes": b"\x80\x04\x8c\x0dtorch.storage\x8c\x10_load_from_bytes\x93C"
        + bytes([len(inner)])
        + inner
        + b"\x85R.",
        "attribute path": b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93\x8c\x04true\x85R.",
        "operator.getitem of a list": b"coperator\ngetitem\n((lI0\ntR.",
        "calls a string": b"\x80\x02X\x02\x00\x00\x00os)R.",
        "calls its own result": b"\x80\x02cfairseq\nThing\n)R)R.",
        "codecs": b"c_codecs\nlookup\n(Vidna\ntR.",
        "functools.partial": b"cfunctools\npartial\n(cos\nsystem\ntR.",
        "webbrowser": b"cwebbrowser\nopen\n(Vhttp://x\ntR.",
        "pty": b"cpty\nspawn\n(Vsh\ntR.",
        "third-party function": b"cpip._internal\nmain\n((ltR.",
    }


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_paths_of_every_python_are_data(module: str) -> None:
    """3.13 pickles them by the name of a private module."""
    assert inert.plain(stand_in(module, "PosixPath", "a", "b"), iter(range(9))) == "a/b"


@pytest.mark.parametrize("name", list(attacks("x")))
def test_pickles_that_run_code_are_refused_and_nothing_runs(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it-ran"
    pickled = attacks(str(marker))[name]
    said = refusal(container(tmp_path / "evil.pt", pickled))
    assert re.search("attack|protocol 4|Unsupported operand|Can only build|unrecognized function", said), said
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("function", "message"),
    [(os.system, "attack"), (np.save, "attack"), (torch.storage._load_from_bytes, "attack")],
)
def test_a_call_within_a_checkpoint_is_refused_and_nothing_runs(
    tmp_path: Path, zipped: bool, function: Any, message: str
) -> None:
    marker, path = tmp_path / "it-ran.npy", tmp_path / "evil.pt"
    arguments = {os.system: [f"touch {marker}"], np.save: [str(marker), 1]}.get(function, [b"x"])
    content = {"model": {"w": torch.ones(1)}, "cfg": {"x": Call(function, *arguments)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert message in refusal(path)
    if function is os.system:
        with pytest.raises(CheckpointError, match=r"evil\.pt names posix\.system, .* it may be an attack$"):
            read_checkpoint(path)
    assert not marker.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Python's own reader does run them, so that the test above means something."""
    marker = tmp_path / "it-ran"
    process = pickle.loads(attacks(str(marker))["subprocess.Popen"])
    assert process.wait(timeout=30) == 0
    assert marker.exists()
    marker.unlink()
    for name in (
        "os.system",
        "protocol 0",
        "builtins.eval",
        "INST",
        "nested in a state dict",
        "torch.load of bytes",
    ):
        try:
            pickle.loads(attacks(str(marker))[name])
        except RuntimeError as error:  # torch.storage._load_from_bytes, when it finds a bare pickle, too late
            assert "magic number" in str(error)
        assert marker.exists(), name
        marker.unlink()


def test_a_malicious_legacy_stream_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    path = tmp_path / "evil.pt"
    torch.save({"w": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    evil = pickle.dumps(Call(os.system, f"touch {marker}"), protocol=2)
    for data in (evil, evil + whole, whole[: whole.index(b"}q")] + evil):
        path.write_bytes(data)
        refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x97", b"\x80\x09N"]
)
def test_operations_without_a_meaning_here_are_refused(tmp_path: Path, opcode: bytes) -> None:
    refusal(container(tmp_path / "a.pt", b"\x80\x02" + opcode + b"."))


def test_unknown_objects_become_data_without_an_import(tmp_path: Path) -> None:
    thing = b"cno_such_module.deep\nThing\n)\x81}X\x01\x00\x00\x00aK\x01sb"
    data = pickled_tensor(0, (1,), (1,), more=b"X\x03\x00\x00\x00cfg" + thing + b"s")
    assert read_checkpoint(container(tmp_path / "a.pt", data, {"0": bytes(24)})).config == {"a": 1}


def test_an_object_in_place_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    said = refusal(container(tmp_path / "a.pt", b"\x80\x02cno_such_module.deep\nThing\n)\x81."))
    assert said == "holds an object of the class no_such_module.deep.Thing, not a state dict"


@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.data())
def test_damaged_pickles_raise_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    """Any change of any byte gives data or a CheckpointError."""
    base = pickle.dumps(
        {"a": [1, (2, 3)], "b": argparse.Namespace(x="y")}, protocol=data.draw(st.integers(0, 4))
    )
    if data.draw(st.booleans()):
        base = pickled_tensor(0, (2, 3), (3, 1))
    damaged = bytearray(base)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with contextlib.suppress(CheckpointError):
        inert.rewrite(container(tmp_path / "a.pt", cut, {"0": bytes(24)}), tmp_path / "answer")


# --- bombs: the process that reads them has limits ------------------------------------------------

NEST, KEY = b"\x85" * 1_000_000, b"X\x03\x00\x00\x00cfg"


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "far more memory than its size"),
        (b"\x80\x02(" + b"]" * 2_000_000 + b"l.", "far more memory than its size"),
        (b"\x80\x02}" + b")" + NEST + b"K\x01s.", "the process that read it died|nested too deeply"),
    ],
    ids=["one huge object", "many small objects", "a key nested a million times"],
)
def test_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: bytes, message: str
) -> None:
    monkeypatch.setattr(torch_file, "MEMORY_BYTES", 64 << 20)
    path = container(tmp_path / "bomb.pt", pickled)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_time_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dictionary whose keys have one hash, as multiples of 2^61 - 1 do, takes a time quadratic in them."""
    monkeypatch.setattr(torch_file, "TIMEOUT_S", 8)
    keys = ((n * (2**61 - 1)).to_bytes(11, "little") for n in range(1, 200_001))
    pickled = b"\x80\x02}(" + b"".join(b"\x8a\x0b" + key + b"N" for key in keys) + b"u."
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"bomb\.pt is damaged or an attack: reading it takes over 8 s"):
        read_checkpoint(container(tmp_path / "bomb.pt", pickled))
    assert time.monotonic() - started < 60


def test_a_configuration_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    nested = KEY + b"]" * 100_000 + b"a" * 99_999 + b"s"
    data = pickled_tensor(0, (1,), (1,), more=nested)
    assert "nested too deeply" in refusal(container(tmp_path / "a.pt", data, {"0": bytes(24)}))


def test_a_configuration_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    torch.save({"model": {"w": torch.ones(1)}, "cfg": {"a": loop}}, tmp_path / "a.pt")
    assert "refers to itself" in refusal(tmp_path / "a.pt")


def test_a_configuration_that_multiplies_itself_is_refused(tmp_path: Path) -> None:
    level: Any = ["x"]
    for _ in range(40):
        level = [level, level]
    torch.save({"model": {"w": torch.ones(1)}, "cfg": {"a": level}}, tmp_path / "a.pt")
    assert "too large" in refusal(tmp_path / "a.pt")


def test_a_huge_claimed_length_allocates_nothing(tmp_path: Path) -> None:
    refusal(container(tmp_path / "a.pt", b"\x80\x02X" + struct.pack("<I", (1 << 32) - 1) + b"abc."))


def test_a_compressed_container_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + bytes(50_000_000))
    assert "compressed" in refusal(path)


def test_other_pickle_protocols_are_named(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "a.pt", pickle_protocol=4)
    assert "is pickled in protocol 4" in refusal(tmp_path / "a.pt")


# --- tensors that lie about themselves ------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size", "stride", "message"),
    [
        (0, (7,), (1,), "not resizable"),  # beyond its storage
        (1, (2, 3), (3, 1), "not resizable"),
        (0, (2, 3), (4, 1), "not resizable"),
        (0, (10**9,), (0,), "more numbers than it holds"),
        (-1, (2,), (1,), "invalid storage offset"),
        (0, (-2,), (1,), "overflow"),
        (0, (2,), (-1,), "overflow"),
        (0, (2, 3), (1,), "unequal size"),
        (0, (2.0,), (1,), "invalid combination"),
    ],
)
def test_impossible_tensors_are_refused(
    tmp_path: Path, offset: Any, size: Any, stride: Any, message: str
) -> None:
    path = container(tmp_path / "a.pt", pickled_tensor(offset, size, stride), {"0": bytes(24)})
    assert message in refusal(path)


@pytest.mark.parametrize(("numel", "stored"), [(6, 20), (6, 28), (10**12, 24)])
def test_a_storage_of_another_size_is_refused(tmp_path: Path, numel: int, stored: int) -> None:
    path = container(tmp_path / "a.pt", pickled_tensor(0, (2,), (1,), numel), {"0": bytes(stored)})
    assert "does not match expected size" in refusal(path)


def test_a_missing_storage_is_named(tmp_path: Path) -> None:
    assert "data/0: file not found" in refusal(container(tmp_path / "a.pt", pickled_tensor(0, (2,), (1,))))


def test_views_that_overlap_come_out_as_tensors_of_their_own(tmp_path: Path) -> None:
    path = container(
        tmp_path / "a.pt", pickled_tensor(0, (2, 2), (1, 1)), {"0": np.arange(6.0, dtype="<f4").tobytes()}
    )
    assert read_checkpoint(path).state["w"].tolist() == [[0, 1], [1, 2]]


# --- files of another kind ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"\xff\xd8\xff\xe0 a picture", "JPEG"),
        (b"\x89PNG\r\n", "PNG"),
        (b"hello, this is text\n", "neither a zip archive nor a pickle"),
        (b"<!doctype html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x1f\x8b\x08", "gzip"),
        (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
        (b"\x80\x02", "exhausted"),
        (b"PK\x03\x04", "cannot be read"),
    ],
)
def test_files_of_another_kind_say_what_they_are(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_other_zip_archives_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not one that torch" in refusal(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(path))
    assert "TorchScript" in refusal(path)


def test_a_pickled_module_is_named(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    assert "torch.nn.modules.linear.Linear, not a state dict" in refusal(tmp_path / "model.pt")


def test_a_checkpoint_without_tensors_says_so(tmp_path: Path) -> None:
    torch.save({"model": {}, "cfg": {}}, tmp_path / "model.pt")
    assert "no tensors" in refusal(tmp_path / "model.pt")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": {"w": torch.randn(64, 64)}}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for end in {*range(1, len(whole), 997), len(whole) - 1, len(whole) // 2}:
        path.write_bytes(whole[:end])
        refusal(path)


def test_a_flipped_bit_in_the_numbers_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": {"w": torch.zeros(64, 64)}}, path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(4096)) + 2000] ^= 1
    path.write_bytes(data)
    assert "CRC" in refusal(path)


# --- safetensors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_conversion_keeps_encoder_configuration_and_origin(
    golden: Path, originals: dict[str, Checkpoint], tmp_path: Path, name: str
) -> None:
    original = find_encoder(originals[name])
    target = convert(golden / "avhubert" / name, tmp_path / "out.safetensors")
    converted = find_encoder(read_checkpoint(target))
    assert converted.checkpoint.kind == "safetensors"
    assert (converted.checkpoint.name, converted.checkpoint.sha256) == (name, original.checkpoint.sha256)
    assert converted.model == original.model
    assert converted.task == original.task
    assert converted.state.keys() == original.state.keys()
    for key, tensor in original.state.items():
        assert torch.equal(converted.state[key], tensor)


def test_a_converted_file_is_preferred_while_it_fits(golden: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.pt"
    source.write_bytes((golden / "avhubert" / GOLDEN[0]).read_bytes())
    assert read_checkpoint(source).kind == "torch-zip"
    target = convert(source)
    assert target == tmp_path / "model.safetensors"
    assert read_checkpoint(source).kind == "safetensors"
    assert read_checkpoint(source, prefer_converted=False).kind == "torch-zip"
    os.utime(source, (target.stat().st_mtime + 10,) * 2)  # a newer original counts
    assert read_checkpoint(source).kind == "torch-zip"
    source.write_bytes((golden / "avhubert" / GOLDEN[1]).read_bytes())  # another one under the same name, too
    os.utime(source, (0, 0))
    assert read_checkpoint(source).kind == "torch-zip"
    source.unlink()
    assert read_checkpoint(source).kind == "safetensors"


def test_a_stranger_beside_the_checkpoint_is_ignored(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "model.pt")
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    assert read_checkpoint(tmp_path / "model.pt").kind == "torch-zip"
    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path / "model.pt").kind == "torch-zip"


def test_safetensors_of_others_are_read_without_configuration_or_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.config == {}
    assert torch.equal(checkpoint.state["w"], torch.ones(2))


@pytest.mark.parametrize("about", ["[]", "3", '{"config": 1}', '{"config": {}}', "not JSON", '"text"'])
def test_safetensors_with_foreign_metadata_of_our_name_are_refused(tmp_path: Path, about: str) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"syncdiff": about})
    with pytest.raises(CheckpointError, match=r"a\.safetensors (has metadata|is damaged)"):
        read_checkpoint(tmp_path / "a.safetensors")


def small(path: Path) -> Path:
    state = {"w": torch.arange(1000.0), "b": torch.ones(3).half()}
    save_safetensors(Checkpoint(state, {"a": [1]}, "torch-zip", "x.pt", "0" * 64, 5, untrained=True), path)
    return path


def test_safetensors_round_trip(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(small(tmp_path / "a.safetensors"))
    assert checkpoint.untrained
    assert checkpoint.config == {"a": [1]}
    assert torch.equal(checkpoint.state["w"], torch.arange(1000.0))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    first = (tmp_path / "a.safetensors").read_bytes()
    assert small(tmp_path / "b.safetensors").read_bytes() == first


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    whole = small(tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "a.safetensors"
    for end in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match="damaged or no safetensors"):
            read_checkpoint(path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(CheckpointError, match="damaged or no safetensors"):
        read_checkpoint(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="not those that were written"):
        read_checkpoint(path)


def test_the_hash_of_tensors_ignores_order_and_nothing_else() -> None:
    a, b = torch.arange(4.0), torch.ones(2)
    base = tensors_sha256({"a": a, "b": b})
    assert tensors_sha256({"b": b, "a": a.clone()}) == base
    others = [
        {"a": a},
        {"a": b, "b": a},
        {"a": a.reshape(2, 2), "b": b},
        {"a": a.double(), "b": b},
        {"a": a + 1, "b": b},
    ]
    assert len({base, *map(tensors_sha256, others)}) == 6


# --- configurations and encoders ------------------------------------------------------------------


def test_typing_and_enumeration_in_an_omegaconf_configuration() -> None:
    """`typing.List[str]` pickles as operator.getitem(List, str); structured configurations contain it."""
    node = stand_in("omegaconf.nodes", "EnumNode", state={"_val": stand_in("a.b", "Choice", "static")})
    listed = stand_in("omegaconf.listconfig", "ListConfig", state={"_content": [node, None], "_parent": 1})
    content = {
        "x": listed,
        "y": "???",
        "z": stand_in("operator", "getitem", inert._stand_in("typing", "List")),
    }
    config = stand_in("omegaconf.dictconfig", "DictConfig", state={"_content": content})
    value = {"cfg": config, "type": inert._stand_in("a", "B"), "t": (1, 2)}
    assert inert.plain(value, iter(range(99))) == {
        "cfg": {"x": ["static", None], "y": "???", "z": "operator.getitem"},
        "type": "a.B",
        "t": [1, 2],
    }


def encoder_checkpoint(prefix: str, config: dict[str, Any]) -> Checkpoint:
    state = {f"{prefix}encoder.layers.0.self_attn.q_proj.weight": torch.ones(1), "decoder.x": torch.ones(1)}
    return Checkpoint(state, config, "torch-zip", "x.pt", "", 0)


def test_flat_argparse_configurations_are_found() -> None:
    flat = {"encoder_layers": 12, "normalize": True}
    found = find_encoder(encoder_checkpoint("", flat))
    assert found.model == found.task == flat
    assert find_encoder(encoder_checkpoint("", {"model": {"_name": "av_hubert"}})).task == {}
    found = find_encoder(encoder_checkpoint("w2v_encoder.w2v_model.", {"w2v_args": flat}))
    assert found.model == flat
    assert list(found.state) == ["encoder.layers.0.self_attn.q_proj.weight"]


def test_absent_encoders_and_configurations_are_named() -> None:
    with pytest.raises(CheckpointError, match="holds no AV-HuBERT encoder; its tensors begin with decoder"):
        find_encoder(dataclasses.replace(encoder_checkpoint("", {}), state={"decoder.x": torch.ones(1)}))
    with pytest.raises(CheckpointError, match="does not say how its encoder is built"):
        find_encoder(encoder_checkpoint("", {}))
    lacking = {"model": {"w2v_args": None, "w2v_path": "/a/base.pt"}}
    with pytest.raises(CheckpointError, match=r"made from /a/base\.pt"):
        find_encoder(encoder_checkpoint("encoder.w2v_model.", lacking))
