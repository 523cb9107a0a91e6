"""The page about defences, written from the code: `docs/defences.md`."""

from __future__ import annotations

from collections.abc import Iterable

from forethought.defences.base import Defence, InferenceDefence
from forethought.defences.catalogue import all_defences
from forethought.training.methods import catalogue as training
from forethought.training.methods.base import TrainingMethod

_HEAD = """# Defences

<!-- Written by forethought.defences.reference.defences_page; don't edit. -->

{count} ways to defend a model at inference, and {trained} that train it. All are measured alike: attacked by
the same attacks, on harmful and on harmless requests, judged on the answer alone.

A defence at inference is written `NAME`, `NAME:VALUE` (its first option) or `NAME:option=value,option=value`; joined
by `|` they are put around the model from left to right. In `self_reminder | smooth_llm:20` every perturbed copy of a
request gets the reminder.

```python
from forethought.defences.base import Means
from forethought.defences.catalogue import make_defence

defended = make_defence("self_reminder | smooth_llm:20", model, Means())
replies = defended.reply(conversations)
```

- **Score**: what `Response.log_odds` holds; higher means refuse. It gives the area under the curve, and compares
  defences at the same rate of false refusals. Of several defences with a score, the outermost gives it.
- **Needs**: the *weights* of a local model, *harmless* requests to set a threshold on, a *checker* (a judge of harm or
  a model, which options name), the *folder* of a fitted probe or fusion, which says what weights it reads.
- What could not be checked is never taken for safe in silence: guard, examination and filters refuse it
  (`fail_closed`, the default) or let it through, say so in `Response.cause`, and count it.
"""
_WORDS = """## What is the papers' and what is ours

Ideas and numbers are the papers', the wording of prompts is ours: a rate here is no reproduction of theirs to the
digit. What a prompt has the model write before its answer is split off as reasoning. SmoothLLM votes by phrases that
open refusals; copies that say nothing don't vote, a tie refuses. The perplexity filter reads with the defended model's
base weights instead of GPT-2, and has a threshold instead of a trained classifier. The paraphraser and the examiner
are the model itself. Self-consistency samples where the model can, and asks in several neutral
frames where it can't. The linear probe reads the prompt alone: it does not see a prefill.

Reasoning-to-defend takes its steps from SCoT's findings and not from a stronger model, and writes its pivots as text
instead of new tokens. Deliberative alignment filters by the rows' labels instead of a judge, gives the rows' own
answers, and fills up with the teacher's reasoning where less than half of a term's thoughts were right. R2D2 trains an
adapter unless the recipe says otherwise, on a small pool, away from GCG's opening ("Sure, here is"). The consistency
loss compares the verdict on a disguised request with that on the request as it was, and moves the former alone. Weights
of tokens are divided by their sum. Circuit breakers measure how far a state has moved as a share of its own norm: in
absolute terms one token, the sink of attention, would outweigh all others; on the embedded model nothing was rerouted.
"""


def defences_page() -> str:
    """The page as markdown."""
    parts = [_HEAD.format(count=len(all_defences()), trained=len(training.all_methods()))]
    kinds = {"prompt": "Prompts: words around the request", "wrapper": "Wrappers: code around the model"}
    for kind, title in kinds.items():
        listed = [defence for defence in all_defences().values() if defence.kind == kind]
        parts.append(_table(title, listed))
        parts.append(_options(listed))
    parts.append(_table("Training: the weights are changed", (trained(one) for one in training.all_methods().values())))
    return "\n".join([*(part for part in parts if part), _WORDS])


def trained(method: TrainingMethod) -> Defence:
    """A training method as a defence."""
    return Defence(
        id=method.name,
        title=method.title,
        paper=method.paper,
        kind="training",
        trains=method.trains,
        cost=method.cost,
        when_to_choose=method.when_to_choose,
        score=method.score,
    )


def _table(title: str, defences: Iterable[Defence]) -> str:
    rows = [_row(defence) for defence in defences]
    return (
        f"## {title}\n\n"
        "| defence | | paper | trains | cost | score | needs | choose it when |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _row(defence: Defence) -> str:
    cells = (
        f"`{defence.id}`",
        defence.title,
        defence.paper or "none",
        defence.trains,
        defence.cost,
        defence.score or "none of its own",
        ", ".join(defence.needs) or "nothing",
        defence.when_to_choose,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _options(defences: Iterable[InferenceDefence]) -> str:
    """The options of defences that take some; numbers stand in code marks, being settings and no measurements."""
    lines = []
    for defence in defences:
        for name, option in defence.options.model_fields.items():
            default = "has to be given" if option.is_required() else f"default `{option.default}`"
            default = "none by default" if option.default == "" else default
            lines.append(f"| `{defence.id}` | `{name}` | {option.description} | {default} |")
    if not lines:
        return ""
    return "| defence | option | meaning | |\n| --- | --- | --- | --- |\n" + "\n".join(lines) + "\n"
