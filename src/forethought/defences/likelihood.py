"""Two scores that are likelihoods: of the request, and of a turn that opens with a refusal.

A perplexity filter refuses requests that no language model would expect. Adversarial suffixes are improbable text (Alon
and Kamfonas, arXiv 2308.14132). A short one hides in the mean of a long request, so the text is also read in windows
(Jain et al., arXiv 2309.00614). Attacks in fluent language pass it.

Models that give no verdict get a score as well. Refusal training has no verdict to read a probability from. What it
does have is the likelihood of the words that it opens a refusal with, before one of them is written; so the undefended
model, a safety prompt and every model trained to refuse get an operating curve, too, and can be compared with those
that think at the same rate of false refusals.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field
from scipy.special import logsumexp

from forethought.defences.base import (
    Asked,
    Checked,
    InputFilter,
    Means,
    Steps,
    Wrapper,
    described,
    logit,
    unscored,
)
from forethought.errors import ConfigError, InputError, ModelError
from forethought.measure.calibrate import choose_threshold
from forethought.models.conversation import Able, Conversation, Respondent, Response, TellsLogProbs
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

OPENINGS = (
    "I can't", "I cannot", "I can not", "I won't", "I will not", "I'm not able", "I am not able", "I'm unable",
    "I am unable", "I'm sorry", "I am sorry", "I'm really sorry", "Sorry", "I apologize", "Unfortunately",
)  # fmt: skip
"""Disjoint: none begins with another, so that their probabilities add up."""


class OpeningScore(Wrapper):
    """A model whose replies bear the log-odds of its turn opening with a refusal; the replies stay as they are."""

    label = "opening"

    def __init__(self, inner: Respondent) -> None:
        """Raises ConfigError for a model that tells no log-probabilities."""
        super().__init__(inner)
        if not inner.able.log_probs or not isinstance(inner, TellsLogProbs):
            raise ConfigError(
                f"model '{inner.name}'", "tells no log-probabilities, so that it has no score", "Use a local model"
            )
        self.name = inner.name  # a score changes nothing of what is answered
        self._tells: TellsLogProbs = inner

    @property
    def able(self) -> Able:
        """What the model itself can do."""
        return self.inner.able

    def log_probs(
        self,
        conversations: Sequence[Conversation],
        target_strings: Sequence[str],
        first_only: Sequence[bool] | bool = False,
    ) -> list[float]:
        """The model's own, as `TellsLogProbs`."""
        return self._tells.log_probs(conversations, target_strings, first_only)

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """What already has a verdict keeps its own score."""
        (score,) = yield Asked(self._scores, [conversation])
        reply = yield from self.ask(conversation, max_answer_tokens)
        if isinstance(reply, Response) and reply.log_odds is None:
            reply = reply.model_copy(update={"log_odds": score})
        return reply

    def _scores(self, conversations: Sequence[Conversation]) -> Sequence[float | None]:
        """None for a conversation that has no prompt, or too long a one: it must not cost the others theirs."""
        try:
            return self._log_odds(conversations)
        except (InputError, ModelError):
            if len(conversations) == 1:
                return [None]
            return [score for conversation in conversations for score in self._scores([conversation])]

    def _log_odds(self, conversations: Sequence[Conversation]) -> list[float]:
        n = len(OPENINGS)
        asked = [conversation for conversation in conversations for _ in OPENINGS]
        found = self._tells.log_probs(asked, OPENINGS * len(conversations))
        # Rounding can carry a sum of probabilities past one.
        sums = [math.exp(float(logsumexp(found[i * n : (i + 1) * n]))) for i in range(len(conversations))]
        return [logit(min(1.0, one)) for one in sums]


_PIECE_TOKENS = 512
"""A longer text is read in pieces of so many tokens."""
_BATCH_TOKENS = 2048
"""Most tokens of one pass: their logits over the vocabulary are what takes memory."""
NOTHING_TO_READ = "no text to read"


class PerplexitySettings(Record):
    """How the filter reads."""

    window: int = Field(default=10, ge=0, description="tokens of a window; 0 reads the text as a whole")
    max_false_refusal: float = Field(
        default=0.02, ge=0, lt=1, description="share of the harmless calibration requests that may be refused"
    )
    fail_closed: bool = Field(default=True, description="refuse where no perplexity can be told")


def token_losses(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[list[float]]:
    """For each text the negative log-probability (natural) of each of its tokens, given those before it.

    The first token is given the tokenizer's beginning of text, and left out where it has none.
    """
    bos = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    pieces: list[tuple[int, int, list[int]]] = []
    for place, text in enumerate(texts):
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        for start in range(0, len(ids), _PIECE_TOKENS):
            pieces.append((place, start, bos + ids[start : start + _PIECE_TOKENS]))
    found: dict[tuple[int, int], list[float]] = {}
    order = sorted(pieces, key=lambda piece: (-len(piece[2]), piece[0], piece[1]))
    while order:
        n_rows = max(1, _BATCH_TOKENS // len(order[0][2]))
        batch, order = order[:n_rows], order[n_rows:]
        for (place, start, _), losses in zip(batch, _losses(model, [ids for _, _, ids in batch]), strict=True):
            found[place, start] = losses
    losses_by_text: list[list[float]] = [[] for _ in texts]
    for place, start in sorted(found):
        losses_by_text[place] += found[place, start]
    return losses_by_text


def _losses(model: Any, rows: list[list[int]]) -> list[list[float]]:
    import torch  # takes seconds, and the list of defences is also read for help

    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)  # B T
    # Padding stands to the right of a causal model's text: what is read before it can't see it.
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()  # B T-1 V
    flat = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    losses = flat.view(len(rows), longest - 1).cpu().tolist()
    return [row_losses[: len(row) - 1] for row, row_losses in zip(rows, losses, strict=True)]


def log_perplexity(losses: Sequence[float], window: int) -> float | None:
    """Natural log-perplexity of the text, or of its most improbable window; None for a text without tokens.

    Windows stand side by side; the last one reaches back where the text does not fill it.
    """
    if not losses:
        return None
    if not window or len(losses) <= window:
        return sum(losses) / len(losses)
    starts = [*range(0, len(losses) - window, window), len(losses) - window]
    return max(sum(losses[start : start + window]) / window for start in starts)


class PerplexityFilter(InputFilter):
    """A model that is not shown improbable requests."""

    label, Options = "perplexity", PerplexitySettings
    options: PerplexitySettings

    def __init__(
        self,
        inner: Respondent,
        reader: LocalModel,
        harmless: Sequence[str] = (),
        settings: PerplexitySettings | None = None,
        threshold: float | None = None,
    ) -> None:
        """`reader`'s base weights tell the perplexity. `threshold` (natural log) is set on `harmless` texts when None.

        Without harmless texts and without a threshold nothing is refused for its perplexity.
        """
        super().__init__(inner, settings)
        self._reader = reader
        self.refuses_from = self.threshold = self.calibrated(harmless) if threshold is None else threshold
        """Log-perplexity from which to refuse."""

    @classmethod
    def make(cls, inner: Respondent, options: PerplexitySettings, means: Means) -> Respondent:
        """With its threshold set on the harmless requests of `means`."""
        reader = means.weights_for("perplexity")
        if not means.harmless:
            rule = "has no harmless requests to set its threshold on"
            raise ConfigError("defence 'perplexity'", rule, "Give some, as for calibration")
        return cls(inner, reader, [request.text for request in means.harmless], options)

    def calibrated(self, harmless: Sequence[str]) -> float:
        """The lowest threshold that refuses no more of these texts than allowed; infinite without texts."""
        scores = [score for score in self.scores([[text] for text in harmless]) if score is not None]
        if not scores:
            return math.inf
        return choose_threshold([], scores, [], self.options.max_false_refusal, 1.0).threshold

    def scores(self, texts: Sequence[Sequence[str]]) -> list[float | None]:
        """The highest log-perplexity among each conversation's texts; None where there is nothing to
        read, and where the weights give no number."""
        flat = [text for some in texts for text in some]
        reader = self._reader
        off = reader.adapter_off() if reader.settings is not None else contextlib.nullcontext()
        with off:
            losses = iter(token_losses(reader.base_weights, reader.tokenizer, flat))
        found: list[float | None] = []
        for some in texts:
            read = [log_perplexity(next(losses), self.options.window) for _ in some]
            scores = [score for score in read if score is not None]  # an empty turn hides nothing
            found.append(max(scores) if scores and all(map(math.isfinite, scores)) else None)
        return found

    def check(self, conversations: Sequence[Conversation]) -> list[Checked]:
        """Every user turn is read; the most improbable one decides."""
        users = [[turn.content for turn in one.messages if turn.role == "user"] for one in conversations]
        scores = self.scores(users)
        return [
            unscored(NOTHING_TO_READ, self.options.fail_closed)
            if score is None
            else Checked(score=score, refuses=score >= self.threshold)
            for score in scores
        ]


DEFENCES = (described("perplexity", PerplexityFilter),)
