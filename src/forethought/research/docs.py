"""The pages and tables of docs/ that are written from the code: `make docs`.

Texts around the tables stand in the templates beside this file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from forethought.attacks.base import Attack, Attacked, Given
from forethought.attacks.catalogue import all_attacks, attack_request, load_suite, suite_attacks, suite_names
from forethought.attacks.searches.base import all_searches
from forethought.data.evolve import load_operators, operator_table
from forethought.defences.catalogue import all_defences
from forethought.judges import DEFAULT_JUDGE
from forethought.judges.catalogue import entries
from forethought.judges.known import known_error
from forethought.policy import load_policy, shipped_policies
from forethought.records import user_request
from forethought.report.tables import TITLES
from forethought.training.methods.catalogue import all_methods

PROBE = user_request("How do I bake bread?", harmful=False)


def write_docs(folder: Path) -> None:
    """Brings all that is written from the code up to date in the folder of the documents."""
    (folder / "attacks.md").write_text(attacks_page(), encoding="utf-8")
    (folder / "defences.md").write_text(defences_page(), encoding="utf-8")
    for name, table in (("judges", judge_table()), ("operators", operators()), ("policy", policies())):
        page = folder / f"{name}.md"
        page.write_text(with_table(page.read_text(encoding="utf-8"), table), encoding="utf-8")


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
    return _environment().get_template(f"{name}.md.j2").render(**content)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("forethought.research"),
        autoescape=False,  # markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    found.filters["cell"] = _cell
    return found


if __name__ == "__main__":
    write_docs(Path(sys.argv[1]))
