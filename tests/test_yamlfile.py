"""YAML files of the user's: each mistake is told with its place and its fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.errors import ConfigError
from forethought.records import Record
from forethought.yamlfile import parse_yaml, read_text


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
