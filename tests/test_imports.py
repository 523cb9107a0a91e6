"""Imports point one way: a stage knows what stands below it, never what stands above."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import forethought

ROOT = Path(forethought.__file__).parent

# Each module of the foundation may import these and no other part of the package.
FOUNDATION = {
    "errors": set[str](),
    "manifest": {"errors"},
    "yamlfile": {"errors"},
    "leak": set[str](),
    "progress": {"errors"},
    "english": set[str](),
    "policy": {"errors", "yamlfile"},
    "refusal": {"errors"},
    "reasoning": {"errors", "policy"},
    "records": {"errors", "policy", "reasoning"},
    "chat": {"errors", "policy", "reasoning", "records"},
    "store": {"errors", "records"},
}
GROUND = set(FOUNDATION)
# Each package may import these besides itself.
PACKAGES = {
    "engine": GROUND,
    "data": GROUND | {"engine"},
    "evals": GROUND | {"engine", "data"},
    # Some methods train against attacks.
    "train": GROUND | {"engine", "data", "evals"},
    # Their page names the training methods, too.
    "defences": GROUND | {"engine", "data", "evals", "train"},
    "model": GROUND | {"engine", "data", "evals", "defences"},
    "report": GROUND | {"engine", "evals"},
    "evaluation": GROUND | {"engine", "data", "evals", "defences", "model", "report"},
    "pipeline": GROUND | {"engine", "data", "train", "evals", "defences", "model", "report"},
    "commands": GROUND | {"engine", "data", "train", "evals", "defences", "model", "report", "evaluation", "pipeline"},
    # Options in, progress out: it may start anything.
    "cli": GROUND
    | {"engine", "data", "train", "evals", "defences", "model", "report", "evaluation", "pipeline", "commands"},
}
ALLOWED = FOUNDATION | PACKAGES | {"__main__": {"cli"}}  # `python -m forethought`


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
    parts = {part_of(file) for file in FILES}
    assert parts <= set(ALLOWED), "a part is new: say in this test what it may import"
    upwards = {}
    for file in FILES:
        imported = imported_parts(file.read_text(encoding="utf-8"), file.relative_to(ROOT).parts[:-1])
        if above := imported - ALLOWED[part_of(file)] - {part_of(file)}:
            upwards[str(file.relative_to(ROOT))] = above
    assert upwards == {}


def test_nobody_but_the_program_itself_imports_the_command_line() -> None:
    assert [part for part, allowed in ALLOWED.items() if "cli" in allowed] == ["__main__"]


def test_the_allowed_directions_hold_no_circle() -> None:
    order = list(ALLOWED)
    for part, allowed in ALLOWED.items():
        assert all(order.index(other) < order.index(part) for other in allowed), part


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("from forethought.cli import main", "cli"),
        ("import forethought.train.fit as fit", "train"),
        ("from forethought import commands", "commands"),
        ("def late():\n    from forethought.report.page import write_page", "report"),
        ("from ..evals import metrics", "evals"),
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
