"""The walls between the parts: who may import whom, read from the source, and what the wheel holds.

Imports within functions count as well: they only put a circle off. Those for the type checker alone do not.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "model", "evaluate", "configs")
RAY_MODULES = {"pipeline.ray_start", "pipeline.ray_pool", "pipeline.run_ray", "evaluate.run_ray"}
STAGES = ("media", "faces", "features", "avhubert", "datasets", "store", "export")
MOST_MODULES = 16  # in a folder; `__init__.py` is not counted


def source_files() -> list[Path]:
    """Every Python file of the packages, relative to the root."""
    return sorted(p.relative_to(ROOT) for name in PACKAGES for p in (ROOT / name).rglob("*.py"))


def module_name(path: Path) -> str:
    """`pipeline/store/read.py` -> `pipeline.store.read`; a package's `__init__.py` has the package's name."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in source_files()}


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below this one, without the bodies of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        only_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not only_for_types:
            yield child
            yield from runtime_nodes(child)


def imported_names(path: Path) -> set[str]:
    """Dotted names of all that a file imports: of a `from` import both the module and each of its names."""
    names = set()
    for node in runtime_nodes(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_modules(path: Path) -> set[str]:
    """Modules of this project that a file imports, without `syncdiff.`.

    A package counts where something is taken from its `__init__.py`, not where one of its modules is.
    """
    names = {name.removeprefix("syncdiff.") for name in imported_names(path)}
    modules = {name for name in names if name in MODULES}
    through = {name.rpartition(".")[0] for name in modules}
    taken = {name.rpartition(".")[0] for name in names - modules}
    return modules - (through - taken)


IMPORTS = {name: imported_modules(path) for name, path in MODULES.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The members of one circle, the first repeated at the end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def folder(module: str) -> str:
    """The sub-package that a module lies in; itself where it lies in the package's own folder."""
    inner = MODULES[module].parts[1:-1]
    return f"{module.split('.')[0]}.{inner[0]}" if inner else module


def outside(importers: str, *forbidden: str) -> list[str]:
    """Lines `importer -> imported` for imports from one package into others."""
    return [
        f"{name} -> {other}"
        for name, others in IMPORTS.items()
        for other in others
        if (name + ".").startswith(importers + ".")
        and (other + ".").startswith(tuple(f"{f}." for f in forbidden))
    ]


def test_only_three_modules_know_ray() -> None:
    knowing = {
        module
        for module, path in MODULES.items()
        if any(name.split(".")[0] == "ray" for name in imported_names(path))
    }
    assert knowing <= RAY_MODULES


def test_preparation_knows_neither_training_nor_evaluation_and_these_not_each_other() -> None:
    assert outside("pipeline", "model", "evaluate") == []
    assert outside("model", "evaluate") == []
    assert outside("evaluate", "model") == []


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_knows_a_report(stage: str) -> None:
    assert outside(f"pipeline.{stage}", "pipeline.report") == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(IMPORTS) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, others in IMPORTS.items():
        if module.startswith("pipeline."):
            graph.setdefault(folder(module), set()).update(map(folder, others - {"pipeline"}))
    assert circle({name: others - {name} for name, others in graph.items()}) == []


def test_a_listing_of_a_folder_can_be_taken_in_at_a_glance() -> None:
    counts = Counter(str(path.parent) for path in MODULES.values() if path.name != "__init__.py")
    crowded = {f: n for f, n in counts.items() if n > MOST_MODULES}
    assert crowded == {}


def test_the_imports_are_read_as_they_are_meant() -> None:
    """Guards the guard: an import in a function counts, one for the type checker does not."""
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import one\n"
        "def f():\n    import two\n    from syncdiff.pipeline import plan\n"
    )
    found = {
        ast.unparse(node) for node in runtime_nodes(tree) if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert found == {"from typing import TYPE_CHECKING", "import two", "from syncdiff.pipeline import plan"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) and not circle({"a": {"b", "c"}, "b": {"c"}})
    assert (
        "pipeline.store.read" in IMPORTS["pipeline"] and "pipeline.plan" in IMPORTS["pipeline.store.manifest"]
    )


def test_the_wheel_holds_every_file_of_the_tree(tmp_path: Path) -> None:
    """A sub-package that pyproject.toml does not list imports in an editable install, and is missing here."""
    tree = tmp_path / "tree"
    leave_out = shutil.ignore_patterns("__pycache__", "*.pyc", "*.md")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=leave_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    built = subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("syncdiff/")}
    files = {p.relative_to(tree) for name in PACKAGES for p in (tree / name).rglob("*") if p.is_file()}
    assert held == {f"syncdiff/{path.as_posix()}" for path in files}
