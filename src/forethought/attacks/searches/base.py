"""What a search is: an attack that is optimised against one defence, within a budget of queries; and what it aims at.

A search is a generator. It yields a batch of questions, is given their replies, and goes on; its
driver runs the searches of all requests side by side, so that the attacked model, the attacker and
the evaluator each get one large batch a round. Every reply is kept on disk, and a search is
deterministic given its replies and its seed: one that was killed is run again from its start on
the kept replies, and asks nothing twice.

What a search makes likely is its aim: an opening of the answer, a thought that complies, or the verdict itself. A model
that thinks first never begins with "Sure": its turn opens with a thought, and the verdict in it decides. So three aims.
`answer` is the opening of the answer right at the start of the turn, as the attacks were published: it skips the
thought. `think` is a whole thought that finds nothing wrong, and the opening behind it. `verdict` is the one word that
decides, behind such a thought. `auto` is `verdict` for a model that thinks and `answer` for another.

A module lists its search under `METHODS`; its title, options and texts stand in the YAML file beside it. What works on
a model's weights stands in `weights`, and is loaded by a search that runs: no list needs torch.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from forethought.attacks import searches
from forethought.attacks.base import Attacked, Described, Family, Options, find
from forethought.data.teach import intent_of
from forethought.extensions import by_name, listed
from forethought.judges.base import Verdict
from forethought.models.conversation import Able, Response
from forethought.policy import Policy, default_policy
from forethought.reasoning import VERDICT_ANCHOR, Detail, Format, SafetyReasoning, markers, render
from forethought.records import Message, Record, Request

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

Need = Literal["gradients", "log_probs", "attacker", "evaluator", "templates"]
"""White-box gradients, log-probabilities of a text, an attacker, one that rates, a template file."""
Writer = Literal["attacker", "evaluator"]


def digest(*parts: Any) -> str:
    """32 hexadecimal digits of anything that JSON holds."""
    joined = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Ask(Record):
    """A query to the attacked model. Its answer is judged, and counts against the budget."""

    attacked: Attacked


class Score(Record):
    """How likely the attacked model is to open its turn with a text; counts against the budget, too."""

    attacked: Attacked
    target_string: str
    """The text, after the prefill where there is one."""
    first_only: bool = False
    """True for the log-probability of its first token alone."""


class Write(Record):
    """A text asked of the attacker model or the evaluator."""

    role: Writer
    messages: tuple[Message, ...]
    max_tokens: int = 512
    temperature: float = 1.0
    take: int = 0
    """Number that tells repeated samples of the same messages apart."""


class Grade(Record):
    """An answer that was made elsewhere, such as from perturbed embeddings, to be judged. Costs one query."""

    request: Request
    answer: str
    reasoning: str = ""


@dataclass(frozen=True)
class Compute:
    """Work on the attacked model's weights, such as one step of gradients; what it returns is kept on disk."""

    name: str
    """Unique within the search: `step/17`."""
    work: Callable[[], dict[str, Any]]
    """Pure given the search's seed and earlier replies; returns what JSON holds."""
    forwards: int = 0
    """Forward passes of the attacked model that it takes, one a sequence: its cost."""


Question = Ask | Score | Write | Grade | Compute


@dataclass(frozen=True)
class Reply:
    """What came of one question. Fields that don't belong to its kind are None."""

    response: Response | None = None
    """Of an Ask."""
    verdict: Verdict | None = None
    """Of an Ask or a Grade."""
    broken: bool | None = None
    """Of an Ask or a Grade: whether the judge finds that the attack got through; None is unscored."""
    rating: int | None = None
    """The same from 1 (refused) to 10 (fully jailbroken), as PAIR and TAP feed it back; None is unscored."""
    log_prob: float | None = None
    """Of a Score: natural logarithm, summed over the tokens."""
    text: str | None = None
    """Of a Write."""
    tokens: int = 0
    """Of a Write, prompt and text, where the writer counts them."""
    made: Mapping[str, Any] | None = None
    """Of a Compute."""
    cause: str = ""
    """Why there is no reply; a search goes on without it and never takes it for a success or a refusal."""


Questions = Sequence[Question]
Replies = Sequence[Reply]
Run = Generator[Questions, Replies, None]
"""Ends by itself: at its own end or when it has got through. The driver ends it where its budget is spent."""


@dataclass(frozen=True)
class Goal:
    """What a search is after."""

    request: Request
    """What is asked; harmful, or harmless for the control."""
    target_string: str
    """Opening of an answer that complies, such as "Sure, here is a table of the planets"."""


@dataclass(frozen=True)
class Tools:
    """What a search may use besides its questions."""

    able: Able = field(default_factory=Able)
    policy: Policy = field(default_factory=default_policy)
    format: Format = "think"
    """How the attacked model writes its thought."""
    thinks: bool = False
    """Whether the attacked model reasons before it answers."""
    model: LocalModel | None = None
    """The attacked model's weights, for searches that need gradients; None where they are out of reach."""
    templates: Sequence[str] = ()
    """Jailbreak templates of the user's file, `{request}` where the request goes."""
    group: Sequence[Goal] = ()
    """Goals that a universal attack is optimised for; the same for every search of a run."""


Search = Callable[[Goal, random.Random, Options, Tools], Run]


class Method(Described):
    """An adaptive attack."""

    noun: ClassVar[str] = "search"
    needs: tuple[Need, ...] = ()
    multi_turn: bool = False
    cost: str
    """What one request costs at the defaults, in queries and forward passes."""
    queries: int
    """Query budget a request with the paper's defaults; what a run allows is the driver's, and no option."""
    search: Search


def described(file: str, **functions: Search) -> list[Method]:
    """The searches of the YAML file beside a module, each with its function.

    An option that is only named there is one of `options.yaml`.
    """
    shared = {row["name"]: row for row in Family.read("searches/options").parameters}
    methods = []
    for row in Family.read(f"searches/{file}").searches:
        rows = [*row["parameters"], *row.get("more", ())]
        parameters = [shared[one] if isinstance(one, str) else one for one in rows]
        fields = {key: value for key, value in row.items() if key != "more"}
        methods.append(Method(**{**fields, "parameters": parameters, "search": functions[row["name"]]}))
    return methods


def all_searches() -> dict[str, Method]:
    """The searches of every module of this package and of files added to it, by name."""
    return by_name(listed(searches, "METHODS"))


def parse_method(spec: str) -> Method:
    """The search that a suite names: `NAME`, `NAME:VALUE` (its first option), `NAME:option=value,option=value`.

    Raises ConfigError for an unknown search or option, and for a value out of range.
    """
    name, _, written = spec.partition(":")
    return find("search", name.strip(), all_searches()).with_options(written)


def why_not(method: Method, tools: Tools, attacker: bool, evaluator: bool) -> str:
    """Why a search can't be run here, or empty."""
    needs = {
        "gradients": (tools.model is not None, "the model's weights"),
        "log_probs": (tools.able.log_probs, "a model that tells log-probabilities"),
        "attacker": (attacker, "an attacker model"),
        "evaluator": (evaluator, "an evaluator model"),
        "templates": (bool(tools.templates), "a local file of templates"),
    }
    missing = [what for need, (there, what) in needs.items() if need in method.needs and not there]
    return f"needs {missing[0]}" if missing else ""


def ask_once(attacked: Attacked, asked: set[str]) -> Generator[Questions, Replies, bool]:
    """Asks under an attack, unless its text is among those that got an answer already. True where it got through."""
    if attacked.text in asked:
        return False
    (reply,) = yield [Ask(attacked=attacked)]
    if reply.response is not None:
        asked.add(attacked.text)
    return bool(reply.broken)


def opening_of(request: Request) -> str:
    """A target string for a request whose benchmark gives none: "Sure, here is" as GCG has it (arXiv 2307.15043)."""
    text = request.plain.strip().rstrip(".?!")
    return f"Sure, here is {text[:1].lower()}{text[1:]}"


@dataclass(frozen=True)
class Aim:
    """A text of the model's own turn that a search makes likely."""

    prefill: str
    """What of the turn is taken as given."""
    target_string: str
    """What is made likely behind it."""
    first_decides: bool
    """Whether its first token says more than how a turn always begins."""

    def score(self, attacked: Attacked, first_only: bool = False) -> Score:
        """The question how likely it is under an attack. `first_only` holds where the first token decides."""
        opened = attacked.opened(self.prefill) if self.prefill else attacked
        return Score(attacked=opened, target_string=self.target_string, first_only=first_only and self.first_decides)


def aim_at(goal: Goal, tools: Tools, kind: str) -> Aim:
    """The aim of a kind.

    The thought is rendered as the model was taught to write it, and states the request. A model whose turn can't be
    begun for it is scored on prefill and target together.
    """
    if kind == "auto":
        kind = "verdict" if tools.thinks else "answer"
    if kind == "answer":
        return Aim("", goal.target_string, first_decides=True)
    settings = tools.model.settings if tools.model is not None else None
    detail = settings.detail if settings is not None else "short"
    thought = harmless_thought(goal.request, tools.policy, tools.format, detail)
    if kind == "verdict":
        head, anchor, _ = thought.partition(VERDICT_ANCHOR)
        prefill, target = head + anchor, " comply"
    else:
        prefill = markers(tools.format)[0] + "\n"
        target = thought.removeprefix(prefill) + goal.target_string
    if not tools.able.prefill:
        return Aim("", prefill + target, first_decides=False)
    return Aim(prefill, target, first_decides=kind == "verdict")


def harmless_thought(request: Request, policy: Policy, format: Format, detail: Detail) -> str:
    """The thought that a trained model would write, did it take the request for a harmless one."""
    reasoning = SafetyReasoning(intent=intent_of(request.plain), verdict="comply")
    return render(reasoning, policy, format, detail)


def tokens_of(text: str, tools: Tools) -> int:
    """Tokens of a text, at least 1: the attacked model's where it is at hand, else estimated from the characters."""
    if tools.model is not None:
        return max(1, len(tools.model.tokenizer(text, add_special_tokens=False)["input_ids"]))
    return max(1, round(len(text) / 4))
