"""What the documents claim: every number is the figure that it names, every bash command runs."""

from __future__ import annotations

import json
import re
import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.shell import Result, run_here
from tests.tiny import briefly, tiny_folder

ROOT = Path(__file__).resolve().parents[1]
ALL = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in ALL if "<!-- Written by make docs" not in page.read_text(encoding="utf-8")]
"""Those written by hand: of the others `make lint` sees to it that they are the code's own."""
RESULTS = sorted((ROOT / "results").glob("*.json"))
_FIGURE_KEYS = {"name", "value", "low", "high", "n", "unscored", "unit"}


def _commands(page: Path) -> list[str]:
    """The commands of all ```bash blocks; what needs minutes or the reader's own files stands in ```text blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


_RUN_SOMETHING = {"attacking.md", "build.md", "first-hour.md", "gate.md", "run.md"}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in _RUN_SOMETHING else [])
        for page in PAGES
        if _commands(page)
    ],
)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader runs them: a later one reads what an earlier one wrote."""
    monkeypatch.chdir(tmp_path)
    for folder in ("recipes", "results", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for command in _commands(page):
        program, *arguments = shlex.split(command)
        assert program == "forethought"
        done = _run(*arguments) if arguments[0] == "run" else run_here(*arguments)
        assert done.code == 0, (command, done.err)
        if arguments[0] == "run":  # it ends with three things to do next, which work as printed
            told = [shlex.split(line) for line in done.out.splitlines() if line.strip().startswith("forethought ")]
            assert [words[1] for words in told] == ["chat", "attack", "card"]
            assert [run_here(*words[1:]).code for words in told] == [0, 0, 0]


def _run(*arguments: str) -> Result:
    """Minutes with the embedded model; the tiny one, thinking briefly, goes through the same stages."""
    with briefly():
        return run_here(*arguments, "--model", tiny_folder())


@pytest.mark.slow
def test_kept_cells_give_the_committed_figures_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the recipes' models are not here
    files = [str(ROOT / "recipes" / name) for name in ("solve_core.yaml", "solve_1_5b.yaml")]
    kept, told = str(ROOT / "results"), tmp_path / "told.json"
    done = run_here("solve", *files, "--so-far", "--kept", kept, "--results", str(told))
    assert done.code == 1, done.err  # it says what has not been asked yet
    committed, again = (
        {one["name"]: one["value"] for one in json.loads(path.read_text(encoding="utf-8"))["figures"]}
        for path in (ROOT / "results" / "solve.json", told)
    )
    assert again == pytest.approx(committed)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_a_results_file_has_the_one_shape_and_no_path_of_a_developers_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w./])/(?:home|root|work|tmp|Users)/", text) == []
    loaded: dict[str, Any] = json.loads(text)
    assert {"command", "commit", "date", "seeds", "machine", "versions", "inputs", "figures"} <= set(loaded)
    names = [figure["name"] for figure in loaded["figures"]]
    assert len(names) == len(set(names))
    for figure in loaded["figures"]:
        assert set(figure) == _FIGURE_KEYS
        if figure["low"] is not None:
            assert figure["low"] <= figure["value"] <= figure["high"]


# Every number with a point is a measurement and names its figure, in a comment above the table or the paragraphs:
#   <!-- figures study: auroc_unseen_scot, asr_direct_base -->
# In results/study.json these stand, and nothing else is quoted down to the next comment or heading. A figure that the
# text names in backticks is named, too. For a table one template a column, "-" for what is none of ours:
#   <!-- figures study: -, auroc_unseen_{row}, diff_youden_{row}_vs_plain | -diff_youden_plain_vs_{row} -->
# {row} is the first word in backticks of a row, or stands in `<!-- rows: base, scot -->`; of several the first that
# exists counts, a minus is its negative, and `one + other` their sum. Code, links, versions and settings in backticks
# are left out.
_NUMBER = r"(?<![\w.])[+-]?\d+\.\d+(?![\w.]*\d)"
_INTERVAL = re.compile(rf"({_NUMBER})(?: \(|, )({_NUMBER}) to ({_NUMBER})")
_LEFT_OUT = r"Apache-2\.0|`[^`]*`|\]\([^)]*\)|arXiv \d+\.\d+|Python \d\.\d+"
_COMMENT = re.compile(r"<!-- (figures \w+|rows): (.*?) -->", re.DOTALL)


class Figure(NamedTuple):
    """A value with the ends of its interval, if it has one."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def total(cls, parts: list[Figure]) -> Figure:
        """Of several the sum, which has no interval."""
        return parts[0] if len(parts) == 1 else cls(sum(part.value for part in parts), None, None)

    def negative(self) -> Figure:
        return Figure(-self.value, None if self.high is None else -self.high, None if self.low is None else -self.low)

    def reads(self, text: str) -> bool:
        """Whether a text that holds one number, or one with its interval, says this figure as it rounds it."""
        with_interval = _INTERVAL.search(text)
        if with_interval is None:
            return all(_rounds_to(self.value, number) for number in re.findall(_NUMBER, text))
        return all(map(_rounds_to, self, with_interval.groups()))


def _rounds_to(value: float | None, written: str) -> bool:
    """A half may have been rounded either way: results keep four digits of what was rounded for the text."""
    half = 0.5 * 10.0 ** -len(written.partition(".")[2])
    return value is not None and abs(value - float(written)) <= half + 1e-9


@lru_cache(maxsize=1)
def _figures() -> dict[str, dict[str, Figure]]:
    """By results file, by name."""
    return {
        path.stem: {
            figure["name"]: Figure(figure["value"], figure["low"], figure["high"])
            for figure in json.loads(path.read_text(encoding="utf-8"))["figures"]
        }
        for path in RESULTS
    }


def _figure(file: str, template: str, row: str = "") -> Figure:
    """The figure of a name or template."""
    tried = [name.strip().replace("{row}", row) for name in template.split("|")]
    for name in tried:
        held = [_figures()[file].get(part) for part in name.removeprefix("-").split(" + ")]
        if None not in held:
            found = Figure.total([figure for figure in held if figure is not None])
            return found.negative() if name.startswith("-") else found
    raise AssertionError(f"results/{file}.json holds no figure {' or '.join(tried)}")


class Part(NamedTuple):
    """A stretch of a document under one comment."""

    text: str
    names: list[tuple[str, str]]
    """Results file and name or template."""
    rows: list[str]


def _parts(page: str) -> list[Part]:
    """Every heading and every comment begins one; comments that follow each other are one."""
    parts = [Part("", [], [])]
    for piece in re.split(r"(<!-- (?:figures \w+|rows): .*?-->\n?|^#[^\n]*$)", page, flags=re.DOTALL | re.MULTILINE):
        comment = _COMMENT.match(piece)
        if comment is None and not piece.startswith("#"):
            parts[-1] = parts[-1]._replace(text=parts[-1].text + piece)
            continue
        if comment is None or parts[-1].text:
            parts.append(Part("", [], []))
        if comment is None:
            continue
        names = [" ".join(name.split()) for name in comment[2].split(",")]
        if comment[1] == "rows":
            parts[-1].rows.extend(names)
        else:
            parts[-1].names.extend((comment[1].split()[1], name) for name in names)
    return parts


def _wrong_in_table(part: Part) -> list[str]:
    """Cells that do not say the figure of their column and row."""
    lines = [line for line in part.text.splitlines() if line.startswith("|")][2:]
    wrong: list[str] = []
    for place, line in enumerate(lines):
        first, *cells = (cell.strip() for cell in line.strip().strip("|").split("|"))
        row = part.rows[place] if part.rows else first.partition("`")[2].partition("`")[0]
        for (file, template), cell in zip(part.names, cells, strict=False):
            shown = re.sub(_LEFT_OUT, "", cell)
            if template == "-" or not re.search(_NUMBER, shown):
                continue
            if not _figure(file, template, row).reads(shown):
                wrong.append(f"{first}: {cell} is not {template}")
    return wrong


def _wrong_in_text(part: Part) -> list[str]:
    """Numbers that are no figure named here, and names of figures that are not quoted."""
    quoted = set(re.findall(r"`(\w+)`", part.text))
    named = {(file, name): _figure(file, name) for file, name in part.names}
    named |= {(file, name): held[name] for file, held in _figures().items() for name in quoted & set(held)}
    text = re.sub(_LEFT_OUT, "", re.sub(r"\s+", " ", part.text))
    says = [found[0] for found in _INTERVAL.finditer(text)]
    says += re.findall(_NUMBER, _INTERVAL.sub("", text))
    wrong = [said for said in says if not any(figure.reads(said) for figure in named.values())]
    idle = [name for file, name in part.names if not any(named[file, name].reads(said) for said in says)]
    return wrong + [f"{name} is named and not quoted" for name in idle]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_is_the_figure_that_it_names(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for part in _parts(text):
        if any("{row}" in name for _, name in part.names):
            assert _wrong_in_table(part) == []
            beside = [line for line in part.text.splitlines() if not line.startswith("|")]
            part = Part("\n".join(beside), [], [])
        assert _wrong_in_text(part) == []


def test_a_number_that_is_not_its_figures_is_found() -> None:
    """A test of the tests: the same figures, one digit off, unnamed, or in another row's cell."""
    names = [("quickstart", "asr_direct_base")]
    value = f"{_figure(*names[0]).value:.2f}"
    assert _wrong_in_text(Part(f"Success is {value}.", names, [])) == []
    assert _wrong_in_text(Part("Success is 0.12.", names, [])) != []
    assert _wrong_in_text(Part(f"Success is {value}.", [], [])) == [value]
    table = f"| defence | success |\n| --- | --- |\n| `base` | {value} |\n"
    columns = [("quickstart", "asr_direct_{row}")]
    assert _wrong_in_table(Part(table, columns, [])) == []
    assert _wrong_in_table(Part(table, columns, ["scot_best"])) != []
