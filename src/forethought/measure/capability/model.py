"""Our models as lm-eval models: its own likelihoods, with the thought taken out before anything is scored.

The base model is lm-eval's HFLM over weights that are loaded already. A model that thinks
gets the same prompts in its chat template, thinks first, and is scored on what comes after:

- verdict *refuse*: the item is refused. Its likelihoods are nan and its answer is empty,
  which the task counts as wrong.
- verdict *comply*, answering with the base: base weights, no thought in context. Scores are
  the base model's own, whatever the thought said.
- verdict *comply*, answering with the adapter: the thought stands in the context, closed,
  and an option's likelihood is what the adapter gives it there. Another thought with the same
  verdict can change the likelihood; it can't change which items are refused.

What stands around the model decides in its place: `respondent` is the model behind its defences. Where one of them has
no verdict, its answer refuses by its words.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from forethought.chat import render_prompt
from forethought.errors import ConfigError, ModelError
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.models.local import LocalModel
from forethought.reasoning import markers
from forethought.records import Message
from forethought.refusal import outcome_of

_REFUSED = (float("nan"), False)


class ForethoughtLM(HFLM):  # type: ignore[misc]
    """A LocalModel under lm-eval's interface, by itself or behind its defences."""

    def __init__(
        self,
        local: LocalModel,
        batch_size: int = 16,
        think_budget: int | None = None,
        respondent: Respondent | None = None,
    ) -> None:
        """`batch_size`: rows scored at once; rows are sorted by length. `think_budget` as in LocalModel.respond.
        `respondent` is the model behind its defences; None is the model by itself."""
        self.local = local
        self.respondent = None if respondent is local else respondent
        self.heard: dict[tuple[str, int], Response] = {}
        """Answers of a model with nothing before them, by prompt and limit, as `LocalModel.known_answers` has them."""
        self.answers_with_base = local.thinking is not None and local.thinking.answer_with == "base"
        weights = local.base_weights if self.answers_with_base else local.model
        # A copy: lm-eval sets a padding token and a side on the tokenizer it is given.
        super().__init__(pretrained=weights, tokenizer=copy.deepcopy(local.tokenizer), batch_size=batch_size)
        self._think_budget = think_budget
        self._kept_logits = 1
        self._keeps_logits = "logits_to_keep" in inspect.signature(_plain_model(weights).forward).parameters
        self._conversations: dict[str, tuple[Message, ...]] = {}
        self._responses: dict[str, Response] = {}

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt in the model's own template, rendered where every chat of ours is."""
        messages = tuple(Message.model_validate(turn) for turn in chat_history)
        text = render_prompt(self.local.tokenizer, messages)
        self._conversations[text] = messages
        return text

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(natural log-likelihood, is greedy) of each continuation; nan for an item that the verdict refuses."""
        if not self._decides:
            return list(super().loglikelihood(requests, disable_tqdm=True))
        if self.respondent is not None and not getattr(self.respondent, "decides_first", False):
            rule = f"{self.respondent.name} has to be asked for answers: it does more than decide before them"
            raise ConfigError("--form loglikelihood", rule, "Use --form generate")
        self._think([request.args[0] for request in requests])
        kept = [index for index, request in enumerate(requests) if not self.refused(request.args[0])]
        asked = [self._after_thought(*requests[index].args) for index in kept]
        results = [_REFUSED] * len(requests)
        if asked:
            with self._answering_weights():
                scored = super().loglikelihood(asked, disable_tqdm=True)
            for index, result in zip(kept, scored, strict=True):
                results[index] = result
        return results

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers without their reasoning; empty for an item that the verdict refuses."""
        if not all(request.args[0] in self._conversations for request in requests):
            self._needs_chat()
            return list(super().generate_until(requests, disable_tqdm=True))
        if not requests:
            return []
        limit = int(requests[0].args[1].get("max_gen_toks", self.max_gen_toks))  # the same for a whole task
        answers = []
        responses = self._respond([self._conversations[request.args[0]] for request in requests], limit)
        for request, response in zip(requests, responses, strict=True):
            context, options = request.args
            self._responses[context] = response
            answers.append("" if self.refused(context) else _until(response.answer, options.get("until") or []))
        return answers

    def refused(self, context: str) -> bool:
        """Whether a prompt that was scored was refused; never for a model without verdicts and defences."""
        response = self._responses.get(context)
        if response is None:
            return False
        if response.decision is None and self.respondent is not None:
            return outcome_of(response.answer)[0] == "refused"
        return response.decision == "refuse"

    @property
    def _decides(self) -> bool:
        """Whether something decides before an answer counts."""
        return self.local.thinks or self.respondent is not None

    def _respond(self, conversations: Sequence[tuple[Message, ...]], limit: int) -> list[Response]:
        if self.respondent is not None:
            return self._defended(conversations, limit)
        if self.local.thinks:
            return self.local.respond(conversations, limit, self._think_budget)
        found = self.local.respond(conversations, limit)
        prompts = [(self.local.prompt_text(messages), limit) for messages in conversations]
        self.heard |= dict(zip(prompts, found, strict=True))
        return found

    def _defended(self, conversations: Sequence[tuple[Message, ...]], limit: int) -> list[Response]:
        assert self.respondent is not None
        asked = [Conversation(messages=turns, think_budget=self._think_budget) for turns in conversations]
        found: list[Response] = []
        for reply in self.respondent.reply(asked, limit):
            if isinstance(reply, Failed):
                raise ModelError(self.respondent.name, reply.cause, "Change that conversation, or use another model")
            found.append(reply)
        return found

    def _think(self, contexts: Sequence[str]) -> None:
        self._needs_chat(contexts)
        new = [context for context in dict.fromkeys(contexts) if context not in self._responses]
        conversations = [self._conversations[context] for context in new]
        if self.respondent is not None:
            thoughts = self._defended(conversations, 0 if self.answers_with_base else 1) if new else []
        elif self.answers_with_base:
            thoughts = self.local.think(conversations, self._think_budget) if new else []
        else:  # the whole thought stands in the context: it has to be written to its end
            thoughts = self.local.respond(conversations, 1, self._think_budget) if new else []
        self._responses |= dict(zip(new, thoughts, strict=True))

    def _needs_chat(self, contexts: Sequence[str] = ("",)) -> None:
        if self._decides and any(context not in self._conversations for context in contexts):
            rule = "a model that thinks, or is defended, is asked in its chat template"
            raise ConfigError("--prompt plain", rule, "Leave it out, or use --prompt chat")

    def _after_thought(self, context: str, continuation: str) -> Any:
        if self.local.thinks and not self.answers_with_base:
            assert self.local.settings is not None
            opening, closing = markers(self.local.settings.format)
            context = f"{context}{opening}\n{self._responses[context].reasoning_text}\n{closing}\n"
        return Instance(request_type="loglikelihood", doc={}, arguments=(context, continuation), idx=0)

    @contextmanager
    def _answering_weights(self) -> Iterator[None]:
        if not self.answers_with_base:
            yield
            return
        with self.local.adapter_off():
            yield

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        """lm-eval's own scoring, batch by batch, with logits for as many last positions as the batch's answers need.

        The vocabulary's projection over prompts is work that nobody reads. Prompts are not shared between answers:
        a cached prompt takes another attention kernel, whose rounding moves long answers by more than the
        difference to lm-eval that we allow.
        """
        order = sorted(range(len(requests)), key=lambda p: (-len(requests[p][1]) - len(requests[p][2]), p))
        results: list[tuple[float, bool]] = [_REFUSED] * len(requests)
        for start in range(0, len(order), int(self.batch_size)):
            places = order[start : start + int(self.batch_size)]
            rows = [requests[place] for place in places]
            self._kept_logits = logits_needed([(len(row[1]), len(row[2])) for row in rows], self.max_length)
            for place, result in zip(places, super()._loglikelihood_tokens(rows, disable_tqdm=True), strict=True):
                results[place] = result
        return results

    def _model_call(self, inps: torch.Tensor, attn_mask: Any = None, labels: Any = None) -> Any:
        with torch.inference_mode():
            if not self._keeps_logits:
                return self.model(inps).logits
            # lm-eval counts positions from the end (it allows for virtual tokens), so fewer logits fit in as they are.
            return self.model(inps, logits_to_keep=min(self._kept_logits, inps.shape[1])).logits


def _plain_model(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def logits_needed(lengths: Sequence[tuple[int, int]], max_length: int) -> int:
    """How many last positions of a right-padded batch hold all its answers' logits.

    `lengths`: (context, continuation) of each row, in tokens. The last token is not put in, so a row of
    c + k tokens has c + k - 1 positions, of which the last k predict the answer.
    """
    positions = [min(context + continuation - 1, max_length) for context, continuation in lengths]
    longest = max(positions)
    return max(longest - own + continuation for own, (_, continuation) in zip(positions, lengths, strict=True))


def without_reasoning(answer: str) -> str:
    """An answer without `<think>` reasoning that some models write by themselves; empty where it was cut inside."""
    if "</think>" in answer:
        return answer.rpartition("</think>")[2].strip()
    return answer.partition("<think>")[0].strip()


def _until(answer: str, stops: Sequence[str]) -> str:
    answer = without_reasoning(answer)
    for stop in stops:
        answer = answer.partition(stop)[0]
    return answer.strip()
