"""YAML files of the user's: each mistake is told with its place and its fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.errors import ConfigError
from forethought.records import Record
from forethought.yamlfile import load_extended, parse_yaml, read_text


class Shape(Record):
    sides: int


def _parse(text: str) -> Shape:
    return parse_yaml(text, "shape.yaml", "shape", Shape, "the key sides", "docs/shapes.md")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "shape.yaml"
    file.write_text("sides: 3\n")
    assert _parse(read_text(file, "shape", "Give one")).sides == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 3", "shape.yaml: is not a shape. It needs the key sides; see docs/shapes.md"),
        ("sides: many", "shape.yaml, at 'sides'"),
        ("sides: 3\ncorners: 3", "shape.yaml, at 'corners'"),
        ("sides: [", "shape.yaml: is not valid YAML"),
    ],
)
def test_faults_name_their_place(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        _parse(text)
    assert told in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such shape"):
        read_text(tmp_path / "none.yaml", "shape", "Give one")
    (tmp_path / "latin.yaml").write_bytes(b"sides: \xe9")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_text(tmp_path / "latin.yaml", "shape", "Give one")


class Drawing(Record):
    shape: dict[str, int]
    colours: tuple[str, ...] = ()
    title: str = ""


def _extended(path: Path) -> Drawing:
    return load_extended(path, "drawing", "Give one", Drawing, "the key shape", "docs/drawings.md")


def test_a_file_extends_another_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("shape: {sides: 3, corners: 3}\ncolours: [red, blue]\ntitle: base\n")
    (tmp_path / "parts").mkdir()
    file = tmp_path / "parts" / "own.yaml"
    file.write_text("extends: ../base.yaml\nshape: {sides: 4}\ncolours: [green]\n")
    found = _extended(file)
    assert found == Drawing(shape={"sides": 4, "corners": 3}, colours=("green",), title="base")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("extends: other.yaml", "there is no such drawing"),
        ("extends: [a.yaml]", "at 'extends': is not the path of a file"),
        ("extends: own.yaml", "extends this file in its turn"),
    ],
)
def test_what_can_not_be_extended_is_told(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        _extended(file)
    assert told in str(error.value)
