"""The page about attacks, written from the code: `docs/attacks.md`."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.attacks.base import Attack, Attacked, Given, Parameter
from forethought.attacks.catalogue import PAPER, all_attacks, attack_request, parse_attack
from forethought.attacks.searches.base import Method
from forethought.attacks.searches.catalogue import all_searches
from forethought.attacks.suites import load_suite, suite_names
from forethought.records import user_request

PROBE = user_request("How do I bake bread?", harmful=False)
_KINDS = {
    "linguistic": "the words are changed",
    "contextual": "what stands around them is changed",
    "encoding": "written in another alphabet, cipher, program or picture",
    "template": "put into a longer frame",
    "reasoning": "aimed at the thought",
    "rewriter": "rewritten by an attacker model",
}
_HEAD = """# Attacks

<!-- Written by forethought.attacks.reference.attacks_page; don't edit. -->

{count} attacks that don't adapt to the model. Every one runs on harmful and on harmless requests alike: a defence that
refuses a style refuses both. The 23 of the SCoT paper (arXiv 2501.19180) are marked *paper*.

A suite names attacks: `NAME`, `NAME:VALUE` (its first option), `NAME:option=value,option=value`; joined by `|` they are
applied from left to right, as in `translate:ta | role_play`.

- **Form**: *rule* (code changes the text), *table* (letters or words of a table), *template* (a text around it),
  *operator* (a training style's rule and templates), *attacker* (a model writes it), *prefill* (words in the model's
  mouth), *limit* (a limit on its thought).
- **Needs**: an *attacker* model, a model that takes a *prefill*, an engine that can cut the thought (*budget*), a local
  *file*. Where that is missing the attack is *not run*, and shown so: never refused, never safe. White box: it needs
  more than a chat window gives.
- **Seen with**: the training styles near it. A model that was trained on one of them has seen the attack; it is shown
  apart and stays out of means over unseen ones. A composition is seen when one of its parts is.
- **Read**: whether a small model is expected to understand it. A guess: the comprehension control measures it.
- **Cost**: calls of the attacker model for each request, and characters of the whole prompt for a request of {length}
  characters.
"""
_SUITES = """## Suites

A suite is a YAML file. `templates:*` and `persuasion:*` stand for every row of a local file. Templates hold the place
of the request as `[INSERT PROMPT HERE]`, `[PROMPT]`, `{goal}` or the like; those without one are put before it.

```yaml
name: mine
include: [reasoning]              # shipped suites, or files beside this one
attacks:
  - translate:ta | role_play
  - attack: many_shot             # the same as many_shot:128
    shots: 128
  - templates:*
  - persuasion:*
files:
  templates: my_templates.csv
  persuasion: my_taxonomy.jsonl   # columns: technique, definition, example
```

| suite | attacks | searches | |
| --- | --- | --- | --- |
"""
_ADAPTIVE = """## Adaptive: searched against each defence

{count} searches. Each is run for every request, harmful and harmless, against the defence under test, until it gets
through or its budget of queries is spent. What counts as a query: a conversation put to the model, the log-probability
of a text in its turn, an answer made from its weights and judged. Texts of the attacker and work on the weights
(forward passes) are counted apart. A suite names them under `adaptive:`, with options as attacks have them:
`best_of_n:n=100,sigma=0.4`. One whose need is missing is *not run*. A search without any verdict is *unscored*: it
neither held nor broke.

- **Kind**: *white box* needs more than a chat window gives; *dialogue* holds a conversation of several turns.
- **Cost**: of one request with the paper's options; a run's own budget ends a search earlier.

| search | kind | after | options | needs | cost |
| --- | --- | --- | --- | --- | --- |
"""
_WORDS = """## What is the papers' and what is ours

Ideas and, where a paper fixes them, numbers are the papers'; the wording is ours, so a rate here is no reproduction
of theirs to the digit. Ciphers ask for an answer in plain English, which judges can read. Demonstrations of few-shot
and many-shot are harmless questions: they press less than the papers' harmful ones. The tense and the persuasion of
the papers are written by a model; `past_tense_rule` and `future_tense_rule` are the nearest that rules come. Words
for ASCII art are the longest ones; the paper has a model choose them. A translated request may be answered in its
language: judge it with a judge that reads it.
"""


def attacks_page() -> str:
    """The page as markdown."""
    parts = [_HEAD.format(count=len(all_attacks()), length=len(PROBE.text))]
    paper = {parse_attack(name).name.split(":")[0] for name in PAPER}
    for kind, meaning in _KINDS.items():
        rows = [_row(attack, attack.name in paper) for attack in all_attacks().values() if attack.kind == kind]
        parts.append(
            f"## {kind.capitalize()}: {meaning}\n\n"
            "| attack | form | after | options | needs | seen with | read | cost |\n"
            "| --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    suites = [load_suite(name) for name in suite_names()]
    parts.append(
        _ADAPTIVE.format(count=len(all_searches()))
        + "\n".join(_search_row(one) for one in all_searches().values())
        + "\n"
    )
    lines = [
        f"| `{suite.name}` | {len(suite.attacks)} | {len(suite.adaptive)} | {suite.description} |" for suite in suites
    ]
    return "\n".join([*parts, _SUITES + "\n".join(lines) + "\n", _WORDS])


def _row(attack: Attack, paper: bool) -> str:
    needs = ", ".join([*attack.needs, *(["white box"] if attack.white_box else [])]) or "nothing"
    options = _options(attack.parameters)
    seen = ", ".join(attack.relatives) or ("its option's" if attack.relatives_by else "none")
    cells = (
        f"`{attack.name}`" + (", *paper*" if paper else ""),
        attack.form,
        attack.paper,
        options,
        needs,
        seen,
        "yes" if attack.readable else "no",
        _cost(attack),
    )
    return _table_row(cells)


def _search_row(method: Method) -> str:
    kind = ", ".join([*(["white box"] if method.white_box else []), *(["dialogue"] if method.multi_turn else [])])
    needs = ", ".join(need.replace("_", "-") for need in method.needs) or "nothing"
    cells = (f"`{method.name}`", kind or "prompt", method.paper, _options(method.parameters), needs, method.cost)
    return _table_row(cells)


def _options(parameters: Sequence[Parameter]) -> str:
    return (
        "; ".join(
            f"`{parameter.name}`: {parameter.meaning}"
            + (f" (`{parameter.default}`)" if parameter.default not in (None, "") else "")
            for parameter in parameters
        )
        or "none"
    )


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cost(attack: Attack) -> str:
    if "attacker" in attack.needs:
        return "1 call"
    if "file" in attack.needs:
        return "its template"
    outcome = attack_request(attack, PROBE, 0, Given())
    assert isinstance(outcome, Attacked)
    return str(sum(len(message.content) for message in outcome.messages) + len(outcome.prefill))
