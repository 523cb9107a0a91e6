"""A perplexity filter: requests that no language model would expect are refused.

Adversarial suffixes are improbable text (Alon and Kamfonas, arXiv 2308.14132). A short one hides in the mean of a long
request, so the text is also read in windows (Jain et al., arXiv 2309.00614). Attacks in fluent language pass it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forethought.defences.base import Checked, InputFilter, Means, described, unscored, user_texts
from forethought.errors import ConfigError
from forethought.measure.calibrate import choose_threshold
from forethought.models.conversation import Conversation, Respondent
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

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
        scores = self.scores([user_texts(conversation) for conversation in conversations])
        return [
            unscored(NOTHING_TO_READ, self.options.fail_closed)
            if score is None
            else Checked(score=score, refuses=score >= self.threshold)
            for score in scores
        ]


DEFENCES = (described("perplexity", PerplexityFilter),)
