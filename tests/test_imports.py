"""Imports point one way: a stage knows what stands below it, never what stands above."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import forethought

ROOT = Path(forethought.__file__).parent

# From the ground up: a part may import those before it, and no other.
ORDER = (
    "errors", "redaction", "disk", "extensions", "manifest", "yamlfile", "policy", "language", "refusal", "reasoning",
    "records", "chat", "progress", "store", "cluster", "models", "metrics", "data", "judges", "attacks", "attempts",
    "measure", "training", "defences", "model", "report", "evaluation", "pipeline", "server", "research", "cli",
    "__main__",
)  # fmt: skip


def part_of(file: Path) -> str:
    """The part of the package that a file belongs to: its folder, or its own name at the top."""
    relative = file.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_parts(source: str, package: tuple[str, ...] = ()) -> set[str]:
    """Parts of forethought that a source imports anywhere in it, also inside functions.

    `package` is the module's own package below forethought, for relative imports.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ("forethought", *package)[: len(package) + 2 - node.level]
                base = ".".join([*above, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("forethought.")}
    return found


FILES = sorted(file for file in ROOT.rglob("*.py") if file.relative_to(ROOT) != Path("__init__.py"))


def test_no_module_imports_anything_above_it() -> None:
    assert {part_of(file) for file in FILES} <= set(ORDER), "a part is new: say in this test where it stands"
    upwards = {}
    for file in FILES:
        part = part_of(file)
        imported = imported_parts(file.read_text(encoding="utf-8"), file.relative_to(ROOT).parts[:-1])
        if above := imported - set(ORDER[: ORDER.index(part)]) - {part}:
            upwards[str(file.relative_to(ROOT))] = above
    assert upwards == {}


def test_the_product_imports_neither_research_nor_the_command_line() -> None:
    """Research and the program itself may; nothing that an application imports does."""
    found = {
        str(file.relative_to(ROOT))
        for file in FILES
        if part_of(file) not in ("research", "cli", "__main__")
        and imported_parts(file.read_text(encoding="utf-8"), file.relative_to(ROOT).parts[:-1]) & {"research", "cli"}
    }
    assert found == set()


def modules_imported(file: Path, names: set[str]) -> set[str]:
    """Modules that a file imports anywhere in it, as far as they are of this package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in names else node.module for name in named}
    return found & names


def import_graph() -> dict[str, set[str]]:
    """By module, the modules that it imports."""
    name_of = {file: ".".join(file.relative_to(ROOT.parent).with_suffix("").parts) for file in FILES}
    name_of = {file: name.removesuffix(".__init__") for file, name in name_of.items()}
    return {name: modules_imported(file, set(name_of.values())) - {name} for file, name in name_of.items()}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even inside functions, or for types alone."""
    left = import_graph()
    while free := [name for name, needs in left.items() if not needs & set(left)]:
        for name in free:
            del left[name]
    assert left == {}


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("from forethought.cli import main", "cli"),
        ("import forethought.training.fit as fit", "training"),
        ("from forethought import pipeline", "pipeline"),
        ("def late():\n    from forethought.report.page import write_page", "report"),
        ("from ..measure import paired", "measure"),
        ("from .. import pipeline", "pipeline"),
    ],
)
def test_every_way_to_import_is_seen(source: str, part: str) -> None:
    assert imported_parts(source, ("data",)) == {part}


def test_trap_12_no_path_of_a_developers_machine_stands_in_the_source() -> None:
    found = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                starts = ("/home/", "/root/", "/work/", "/tmp/", "/Users/", "C:\\", "../shared")
                if node.value.startswith(starts):
                    found.append((file.name, node.value))
    assert found == []
