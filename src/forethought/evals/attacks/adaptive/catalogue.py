"""All searches by name, what suites may write of them, and which can be run here."""

from __future__ import annotations

import difflib

from forethought.errors import ConfigError
from forethought.evals.attacks.adaptive.autodan import AUTODAN
from forethought.evals.attacks.adaptive.base import Method, Tools
from forethought.evals.attacks.adaptive.best_of_n import BEST_OF_N
from forethought.evals.attacks.adaptive.crescendo import CRESCENDO
from forethought.evals.attacks.adaptive.embedding import EMBEDDING
from forethought.evals.attacks.adaptive.gcg import GCG, GCG_MULTI, GCG_SKIP, GCG_THINK
from forethought.evals.attacks.adaptive.goat import GOAT
from forethought.evals.attacks.adaptive.gptfuzzer import GPTFUZZER
from forethought.evals.attacks.adaptive.pair import PAIR
from forethought.evals.attacks.adaptive.random_search import RANDOM_SEARCH
from forethought.evals.attacks.adaptive.tap import TAP
from forethought.evals.attacks.base import Option

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        GCG, GCG_THINK, GCG_SKIP, GCG_MULTI, AUTODAN, RANDOM_SEARCH, EMBEDDING, PAIR, TAP, CRESCENDO, GOAT, BEST_OF_N,
        GPTFUZZER,
    )
}  # fmt: skip


def parse_method(spec: str) -> Method:
    """The search that a suite names: `NAME`, `NAME:VALUE` (its first option), `NAME:option=value,option=value`.

    Raises ConfigError for an unknown search or option, and for a value out of range.
    """
    name, _, written = spec.partition(":")
    method = _known(name.strip())
    chosen = _read_options(method, written.strip())
    if not chosen:
        return method
    said = ",".join(f"{option}={value}" for option, value in chosen.items())
    return method.model_copy(
        update={
            "name": f"{method.name}:{said}",
            "title": f"{method.title} ({', '.join(str(value) for value in chosen.values())})",
            "chosen": chosen,
        }
    )


def why_not(method: Method, tools: Tools, attacker: bool, evaluator: bool) -> str:
    """Why a search can't be run here, or empty."""
    if "gradients" in method.needs and tools.model is None:
        return "needs the model's weights"
    if "log_probs" in method.needs and not tools.able.log_probs:
        return "needs a model that tells log-probabilities"
    if "attacker" in method.needs and not attacker:
        return "needs an attacker model"
    if "evaluator" in method.needs and not evaluator:
        return "needs an evaluator model"
    if "templates" in method.needs and not tools.templates:
        return "needs a local file of templates"
    return ""


def _known(name: str) -> Method:
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=3, cutoff=0.5) or list(METHODS)[:5]
        raise ConfigError(
            f"search '{name}'", "there is no such search", f"Use {', '.join(near)} or another of docs/attacks.md"
        )
    return METHODS[name]


def _read_options(method: Method, written: str) -> dict[str, Option]:
    """Options that differ from their defaults, checked, in the order of the method's parameters."""
    known = {parameter.name: parameter for parameter in method.parameters}
    raw: dict[str, str] = {}
    for piece in [piece.strip() for piece in written.split(",")] if written else []:
        option, equals, value = (part.strip() for part in piece.partition("="))
        if not equals:
            option, value = (method.parameters[0].name if method.parameters else ""), piece
        if option not in known:
            takes = f"It takes {', '.join(known)}" if known else "It takes no options"
            raise ConfigError(f"search '{method.name}'", f"has no option '{option or piece}'", takes)
        if option in raw:
            raise ConfigError(f"search '{method.name}:{written}'", f"gives {option} twice", "Give it once")
        raw[option] = value
    read = {name: known[name].read(method.name, raw[name]) for name in known if name in raw}
    return {name: value for name, value in read.items() if value != known[name].default}
