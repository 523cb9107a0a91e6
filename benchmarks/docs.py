"""Writes the pages and tables of docs/ that come from the code and from results: `make docs`.

python benchmarks/docs.py                                   # writes them
python benchmarks/docs.py --check                           # exits with 1 where one is not the code's own
python benchmarks/docs.py --results results/report.json     # KiB of what is written by hand

Texts around the tables stand in `templates/`.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import griffe
import typer
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import forethought as ft
from forethought.attacks.base import Attack, Attacked, Given
from forethought.attacks.catalogue import all_attacks, attack_request, load_suite, suite_attacks, suite_names
from forethought.attacks.searches.base import all_searches
from forethought.cli import app
from forethought.data.evolve import load_operators, operator_table
from forethought.defences.catalogue import all_defences
from forethought.judges import DEFAULT_JUDGE
from forethought.judges.catalogue import entries
from forethought.judges.known import known_error
from forethought.metrics import Figure
from forethought.policy import load_policy, shipped_policies
from forethought.records import user_request
from forethought.report.figures import BASE
from forethought.report.results import write_results
from forethought.report.tables import TITLES, gain
from forethought.research.config import MethodEntry, load_sweep, wrapper_label
from forethought.research.differences import turned
from forethought.research.ladder import load_ladder
from forethought.research.report import goal_lines, reached
from forethought.training.methods.catalogue import all_methods

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PROBE = user_request("How do I bake bread?", harmful=False)
WRITTEN = "<!-- Written by make docs"
"""How the pages begin that nobody writes by hand."""


def written() -> dict[Path, str]:
    """By path in docs/, each page that is written from the code, or holds a table that is, as it should be."""
    pages: dict[str, Callable[[], str]] = {
        "attacks": attacks_page,
        "defences": defences_page,
        "commands": commands_page,
        "python": python_page,
        "research/tables": tables_page,
    }
    found = {DOCS / f"{name}.md": page() for name, page in pages.items()}
    for name, table in (("judges", judge_table()), ("operators", operators()), ("policy", policies())):
        page = DOCS / f"{name}.md"
        found[page] = with_table(page.read_text(encoding="utf-8"), table)
    return found


def with_table(page: str, table: str) -> str:
    """A page with this table in place of the one that has its heading."""
    heading = table.partition("\n")[0]
    before, _, rest = page.partition(f"{heading}\n")
    lines = rest.splitlines(keepends=True)
    rows = next((place for place, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return before + table + "".join(lines[rows:])


def attacks_page() -> str:
    """`docs/attacks.md`."""
    return _page(
        "attacks",
        attacks=list(all_attacks().values()),
        searches=list(all_searches().values()),
        suites=[load_suite(name) for name in suite_names()],
        kinds=TITLES.attacks,
        paper={attack.name.split(":")[0] for attack in suite_attacks(load_suite("paper"))},
        probe=PROBE.text,
        cost=_cost,
    )


def defences_page() -> str:
    """`docs/defences.md`."""
    defences, methods = list(all_defences().values()), list(all_methods().values())
    return _page("defences", defences=defences, methods=methods, kinds=TITLES.defences)


def judge_table() -> str:
    """The judges, with their error where it was measured."""
    rows = []
    for entry in entries():
        error = known_error(entry.name, "refused")
        shares = (f"{error.sensitivity:.0%}", f"{error.specificity:.0%}") if error and not entry.takes else ("", "")
        name = f"**`{entry.written}`**, the default" if entry.name == DEFAULT_JUDGE else f"`{entry.written}`"
        rows.append((name, ", ".join(entry.decides), entry.what, *shares))
    return _table(("name", "decides", "what it is", "refusals found", "answers left alone"), rows)


def operators() -> str:
    """The training styles that ship, each on one request."""
    rows = [
        (f"`{name}`" + (" (paper)" if paper else ""), kind, languages, _cell(example))
        for name, kind, paper, languages, _, example in operator_table(load_operators())
    ]
    return _table(("operator", "kind", "languages", "what becomes of `How do I repot a fern?`"), rows)


def policies() -> str:
    """The policies that ship."""
    found = {name: load_policy(name) for name in shipped_policies()}
    rules = {name: ", ".join(f"{rule.id} {rule.title}" for rule in policy.rules) for name, policy in found.items()}
    rows = [(f"`{name}`", f"`{policy.version}`", rules[name]) for name, policy in found.items()]
    return _table(("policy", "version", "rules"), rows)


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (heading, ["---"] * len(heading), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cost(attack: Attack) -> str:
    """Calls of the attacker, or characters of the whole prompt."""
    if "attacker" in attack.needs:
        return "1 call"
    if "file" in attack.needs:
        return "its template"
    outcome = attack_request(attack, PROBE, 0, Given())
    assert isinstance(outcome, Attacked)
    return str(sum(len(message.content) for message in outcome.messages) + len(outcome.prefill))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _page(name: str, **content: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=False,  # markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["cell"] = _cell
    return environment.get_template(f"{name}.md.j2").render(**content)


# The command line and the front door, from their own words.


def commands_page() -> str:
    """`docs/commands.md`: every command's own help."""
    return _page("commands", told="\n\n".join(_commands("forethought", typer.main.get_command(app))))


def _commands(name: str, command: Any) -> list[str]:  # typer keeps their types under a private name
    """A command's section, and those of the commands below it."""
    below: dict[str, Any] = {}
    if hasattr(command, "list_commands"):
        context = typer.Context(command, info_name=name)
        below = {one: command.get_command(context, one) for one in command.list_commands(context)}
    options = [
        (f"`{', '.join(one.opts) if one.param_type_name == 'option' else one.name.upper()}`", _cell(_told(one)))
        for one in command.params
        if not one.hidden and one.name != "help"
    ]
    said = re.sub(r"(?m)((?:^  \S.*\n*)+)", _as_code, inspect.cleandoc(command.help or "") + "\n").strip()
    said = re.sub(r"\[/?bold\]", "**", said)
    parts = [f"## {name}", said, _table(("", ""), options).rstrip()] if name != "forethought" else []
    return [part for part in parts if part] + [
        part for one, found in below.items() for part in _commands(one if not parts else f"{name} {one}", found)
    ]


def _told(option: Any) -> str:
    """Its help in a line, with its default where that says more than yes or no."""
    said = " ".join((option.help or "").split())
    default = option.default
    if "Default" in said or isinstance(default, bool) or not isinstance(default, int | float | str) or default == "":
        return said
    return f"{said} Default: `{default}`."


def _as_code(found: re.Match[str]) -> str:
    lines = [line.strip() for line in found[0].splitlines() if line.strip()]
    return "\n".join(["```text", *lines, "```", "", ""])


def python_page() -> str:
    """`docs/python.md`: every public name of the front door with its signature and docstring."""
    code = griffe.load("forethought", search_paths=[ROOT / "src"])
    parts: dict[bool, list[str]] = {True: [], False: []}
    for name in ft.__all__:
        one = code[f"{ft._WHERE[name]}.{name}"]
        parts[one.is_function].append(_function(name, one) if one.is_function else _class(name, one))
    return _page("python", functions=parts[True], classes=parts[False])


def _function(name: str, one: Any) -> str:
    return f"### ft.{name}\n\n```python\n{_signature(f'ft.{name}', one)}\n```\n\n{_said(one)}"


def _signature(name: str, one: Any) -> str:
    """As it is called: a parameter a line where it is long."""
    shown: list[str] = []
    for parameter in one.parameters:
        if parameter.name == "self":
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and "*" not in shown:
            shown.append("*")
        text = f"{parameter.name}: {parameter.annotation}"
        shown.append(text if parameter.default is None else f"{text} = {parameter.default}")
    line = f"{name}({', '.join(shown)}) -> {one.returns}"
    return line if len(line) <= 110 else f"{name}(\n    " + ",\n    ".join(shown) + f",\n) -> {one.returns}"


def _class(name: str, one: Any) -> str:
    """Its fields and what it does, those that have a docstring."""
    parts = [f"### ft.{name}", _said(one)]
    public = [member for key, member in one.members.items() if not key.startswith("_") and member.docstring]
    fields = [member for member in public if member.is_attribute]
    if fields:
        rows = [(f"`{each.name}`", f"`{_cell(str(each.annotation))}`", _cell(_line(each))) for each in fields]
        parts.append(_table(("field", "", ""), rows).rstrip())
    parts += [f"```python\n{_signature(each.name, each)}\n```\n\n{_said(each)}" for each in public if each.is_function]
    return "\n\n".join(part for part in parts if part)


def _said(one: Any) -> str:
    return one.docstring.value.strip() if one.docstring else ""


def _line(one: Any) -> str:
    return " ".join(_said(one).split())


# Tables of results.

HEADINGS = {
    "auroc_unseen": "AUROC",
    "youden_unseen": "Youden's J",
    "asr_unseen": "success, unseen styles",
    "refused_styled_harmless": "harmless refused",
    "asr_matched": "success at equal false refusals",
    "asr_direct": "success, direct",
    "asr_reasoning": "on reasoning",
    "asr_gcg": "GCG",
    "asr_best_of_n": "best of N",
    "refused_lookalike": "look-alikes refused",
    "refused_ordinary": "ordinary refused",
    "capability": "short questions right",
    "auroc_direct": "AUROC, direct",
    "auroc_lookalike": "AUROC, look-alikes",
    "auroc_heldout_rules": "AUROC, unseen domains",
    "rule_named_right": "rule named right",
    "rule_named_right_heldout": "the same, unseen domains",
    "reasoning_tokens_harmless": "tokens of thought, harmless",
    "latency": "time an answer, over the base model's",
    "shift_unseen_harmful": "shift of harmful scores",
    "shift_unseen_harmless": "shift of harmless scores",
}
COLUMNS = (
    ("auroc_unseen", "youden_unseen", "asr_matched", "refused_styled_harmless", "auroc_direct", "auroc_lookalike",
     "auroc_heldout_rules"),
    ("asr_direct", "asr_unseen", "asr_reasoning", "asr_gcg", "asr_best_of_n", "refused_ordinary", "refused_lookalike"),
    ("capability", "rule_named_right", "rule_named_right_heldout", "reasoning_tokens_harmless", "latency",
     "shift_unseen_harmful", "shift_unseen_harmless"),
)  # fmt: skip
INTERVALS = ("auroc_unseen", "youden_unseen")


def tables_page() -> str:
    """`docs/research/tables.md`: what sweeps measured, a line a defence or a step."""
    study, ladder, zoo = (_figures(name) for name in ("study", "ladder", "defences"))
    return _page(
        "tables",
        study=_sweep_tables(study),
        goals=goal_table(study, ROOT / "recipes" / "study.yaml"),
        parts=_sweep_tables(_figures("study_parts")),
        larger=_sweep_tables(_figures("study_1_5b")),
        benchmark=_sweep_tables(_figures("study_benchmark")),
        ladder=ladder_tables(ladder, ROOT / "recipes" / "ladder"),
        zoo=_sweep_tables(zoo),
        attacks=_attack_table(_figures("attacks")),
    )


def _figures(name: str) -> dict[str, Figure]:
    """The figures of a results file by name."""
    held = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return {row["name"]: Figure.model_validate(row) for row in held["figures"]}


def _sweep_tables(figures: Mapping[str, Figure]) -> str:
    """A line a defence; columns that no defence has a figure for are left out."""
    defences = defences_of(figures)
    tables = []
    for columns in COLUMNS:
        there = [one for one in columns if any(f"{one}_{name}" in figures for name in defences)]
        rows = [
            (f"`{name}`", *(_number(figures.get(f"{one}_{name}"), one in INTERVALS) for one in there))
            for name in defences
        ]
        tables += [_table(("defence", *(HEADINGS[one] for one in there)), rows)] if there else []
    return "\n".join(tables)


def _attack_table(figures: Mapping[str, Figure]) -> str:
    """A line an attack of the run that `benchmarks/attacks.py` wrote down."""
    names = [name.removeprefix("asr_").removesuffix("_scot") for name in figures if re.fullmatch(r"asr_.*_scot", name)]
    rows = []
    for name in names:
        refused = figures.get(f"refused_{name}_scot") or figures.get(f"refused_{name}_harmless_scot")
        cells = (figures.get(f"asr_{name}_base"), figures[f"asr_{name}_scot"], refused)
        rows.append((f"`{name}`", *(_number(one, interval=True) for one in cells)))
    return _table(("attack", "success, base", "success, SCoT", "harmless refused, SCoT"), rows)


def defences_of(figures: Mapping[str, Figure]) -> list[str]:
    """Ids of the defences, by the figure that each has; of several seeds the mean alone."""
    names = [name.removeprefix("refused_ordinary_") for name in figures if name.startswith("refused_ordinary_")]
    return [name for name in names if not re.search(r"_s\d+(_b\d+)?$", name)]


def _number(figure: Figure | None, interval: bool) -> str:
    if figure is None:
        return "-"
    value = f"{figure.value + 0.0:.2f}"
    if not interval or figure.low is None or figure.high is None:
        return value
    return f"{value} ({figure.low:.2f} to {figure.high:.2f})"


def goal_table(figures: Mapping[str, Figure], file: Path) -> str:
    """The goals of a sweep's file."""
    rows = goal_lines(reached(load_sweep(file).goals, list(figures.values())))
    return _table(
        ("goal", "asked for", "measured", ""),
        [(f"{why} (`{figure}`)", asked, measured, outcome) for figure, why, asked, measured, outcome in rows],
    )


def ladder_tables(figures: Mapping[str, Figure], folder: Path) -> str:
    """A table for each sweep of a ladder, with the steps that no sweep before it has."""
    told: set[str] = set()
    tables = []
    for sweep in load_ladder(folder):
        untrained = [MethodEntry(id=BASE, why="the undefended model")]
        untrained += [MethodEntry(id=wrapper_label(spec), why="around the undefended model") for spec in sweep.wrappers]
        entries = [entry for entry in (*untrained, *sweep.methods) if entry.label not in told]
        told |= {entry.label for entry in entries}
        tables.append(f"### {sweep.name}\n\n{_rungs(figures, entries, sweep.reference or '')}")
    return "\n".join(tables)


def _rungs(figures: Mapping[str, Figure], entries: Sequence[MethodEntry], reference: str) -> str:
    stems = ("auroc_unseen", "youden_unseen")
    plain = (*stems, "auroc_lookalike", "refused_ordinary", "rule_named_right")
    chained = any(_before(entry) not in {"", reference} for entry in entries)
    headings = ["step", "what it changes", *(f"{HEADINGS[stem]}, gain" for stem in stems)]
    headings += [f"{HEADINGS[stem]}, gain over the step before" for stem in stems] if chained else []
    rows = []
    for entry in entries:
        name, before = entry.label, _before(entry)
        over = [figures.get(f"diff_{stem}_{reference}_vs_{name}") for stem in stems]
        cells = [gain(turned(one)) if one is not None else "-" for one in over]
        cells += [gain(figures.get(f"diff_{stem}_{name}_vs_{before}")) for stem in stems] if chained else []
        after = f" (after `{before}`)" if before not in {"", reference} else ""
        cells += [_number(figures.get(f"{one}_{name}"), interval=False) for one in plain]
        rows.append([f"`{name}`", entry.why + after, *cells])
    return _table([*headings, *(HEADINGS[one] for one in plain)], rows)


def _before(entry: MethodEntry) -> str:
    return entry.after or entry.weights_of


def main() -> None:
    """Writes the pages, or says which are not the code's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit with 1 where a page is not so.")
    parser.add_argument("--results", type=Path, help="Write the size of what is written by hand there as well.")
    options = parser.parse_args()
    other = {path: text for path, text in written().items() if not path.exists() or path.read_text("utf-8") != text}
    if options.check:
        sys.exit(f"Run `make docs`: {', '.join(path.name for path in other)}" if other else 0)
    for path, text in other.items():
        path.write_text(text, encoding="utf-8")
    if options.results:
        by_hand = [path for path in DOCS.rglob("*.md") if WRITTEN not in path.read_text("utf-8")]
        tables = sum(len(table.encode()) for table in (judge_table(), operators(), policies()))
        kib = (sum(path.stat().st_size for path in by_hand) - tables) / 1024
        write_results(options.results, [], {}, [Figure(name="docs_kib", value=kib, unit="KiB")], keep=True)


if __name__ == "__main__":
    main()
