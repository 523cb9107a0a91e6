"""Questions as lm-eval tasks, built in memory: no hub, no files besides the user's.

Two forms. `loglikelihood` compares the likelihoods of a question's options, and for
questions without options measures the likelihood of the reference answer. `generate` lets
the model write, and lm-eval's own filters extract the answer.

lm-eval: Gao et al., "The Language Model Evaluation Harness", doi 10.5281/zenodo.12608602.
IFEval: arXiv 2311.07911.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import datasets
from lm_eval.api.task import ConfigurableTask

from forethought.measure.capability import Choices, Form
from forethought.measure.capability.questions import LETTERS, Kind, Question

MAX_TOKENS: dict[Kind, int] = {"choice": 32, "number": 256, "short": 32, "open": 128, "instructions": 512}
"""Longest generated answer by kind, in tokens."""
_ANSWER = "Question: {}\nAnswer:"
_NUMBER = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"  # lm-eval's `flexible-extract` of GSM8K
_LETTER = r"\(([A-Z])\)|^\s*([A-Z])(?:[.):]|\s*$)"


class LocalTask(ConfigurableTask):  # type: ignore[misc]
    """An lm-eval task over questions of one kind.

    A refused item is wrong, never a likelihood: the model marks it with nan, or with an empty answer.
    """

    kind: Kind = "choice"

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
        """The metrics of one item; `acc` is nan where a checker failed, which counts as unscored."""
        output = str(self.OUTPUT_TYPE)
        if output in {"multiple_choice", "loglikelihood"}:
            if any(math.isnan(result[0]) for result in results):
                return {"acc": 0.0, "acc_norm": 0.0} if output == "multiple_choice" else {"perplexity": math.nan}
            return self._of_lm_eval(doc, results)
        if self.kind in {"choice", "number"}:
            return {"acc": self._of_lm_eval(doc, results)["exact_match"]}
        return {"acc": _generated[self.kind](doc, str(results[0]))}

    def _of_lm_eval(self, doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
        metrics: dict[str, Any] = super().process_results(doc, results)
        return {name: float(value) for name, value in metrics.items()}


def build_task(
    name: str, kind: Kind, questions: Sequence[Question], form: Form, choices: Choices = "text",
    shots: Sequence[Question] = (), max_tokens: int | None = None,
) -> LocalTask:  # fmt: skip
    """An lm-eval task over questions of one kind; `shots` are worked examples put before each.

    `max_tokens`: longest generated answer; None is the kind's own limit.
    """
    docs = [as_doc(question) for question in questions]
    listed = kind == "choice" and (form == "generate" or choices == "letter")
    config: dict[str, Any] = {
        "task": name,
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(docs)},
        "test_split": "test",
        "doc_to_text": _prompt_listed if listed else _prompt_plain if kind in {"open", "instructions"} else _prompt,
        "num_fewshot": len(shots),
        "metadata": {"version": 1.0},
    }
    config |= _scored(kind, listed) if form == "loglikelihood" else _written(kind, max_tokens or MAX_TOKENS[kind])
    if shots:
        # Functions are not taken over from the task: the sampler gets them again.
        own = {key: config[key] for key in ("doc_to_text", "doc_to_target", "doc_to_choice") if key in config}
        config["fewshot_config"] = {"sampler": "first_n", "samples": [as_doc(shot) for shot in shots], **own}
    with _quiet():
        task = LocalTask(config=config)
    task.kind = kind
    return task


def as_doc(question: Question) -> dict[str, Any]:
    """A question as a row of lm-eval's dataset."""
    return {
        "id": question.id,
        "question": question.text,
        "choices": list(question.choices),
        "right": list(question.right),
        "answers": list(question.answers),
        "checks": list(question.checks),
        "check_arguments": question.check_arguments,
    }


def _prompt(doc: Mapping[str, Any]) -> str:
    return _ANSWER.format(doc["question"])


def _prompt_plain(doc: Mapping[str, Any]) -> str:
    return str(doc["question"])


def _prompt_listed(doc: Mapping[str, Any]) -> str:
    lines = [f"({letter}) {text}" for letter, text in zip(LETTERS, doc["choices"], strict=False)]
    return "\n".join([f"Question: {doc['question']}", *lines, "Answer:"])


def _letters(doc: Mapping[str, Any]) -> list[str]:
    return list(LETTERS[: len(doc["choices"])])


def _scored(kind: Kind, listed: bool) -> dict[str, Any]:
    if kind == "choice":
        return {
            "output_type": "multiple_choice",
            "doc_to_choice": _letters if listed else (lambda doc: list(doc["choices"])),
            "doc_to_target": lambda doc: list(doc["right"]),
            "metric_list": [_mean("acc"), _mean("acc_norm")],
        }
    return {
        "output_type": "loglikelihood",
        # The worked answer of a number task, the first accepted answer of the others.
        "doc_to_target": lambda doc: doc["answers"][-1] if kind == "number" else doc["answers"][0],
        "metric_list": [{"metric": "perplexity", "aggregation": "mean", "higher_is_better": False}],
    }


def _written(kind: Kind, max_tokens: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "output_type": "generate_until",
        "doc_to_target": lambda doc: doc["answers"][0] if doc["answers"] else "",
        "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": max_tokens},
        "metric_list": [_mean("exact_match")],
    }
    if kind == "number":
        regex = {"function": "regex", "group_select": -1, "regex_pattern": _NUMBER}
        ignored = {"ignore_case": True, "regexes_to_ignore": [",", r"\$", r"\.$"]}
        config["filter_list"] = [{"name": "flexible-extract", "filter": [regex, {"function": "take_first"}]}]
        config["metric_list"] = [_mean("exact_match") | ignored]
    if kind == "choice":
        regex = {"function": "multi_choice_regex", "group_select": -1, "ignore_case": True, "regex_pattern": _LETTER}
        config["filter_list"] = [{"name": "letter", "filter": [regex, {"function": "take_first"}]}]
        config["doc_to_target"] = lambda doc: LETTERS[doc["right"][0]]
        config["metric_list"] = [_mean("exact_match") | {"ignore_punctuation": True}]
    return config


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _short_is_right(doc: Mapping[str, Any], answer: str) -> float:
    """1 where an accepted answer stands in the text as words of its own."""
    said = f" {_words(answer)} "
    return float(any(f" {_words(accepted)} " in said for accepted in doc["answers"]))


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() or c == "-" else " " for c in text.lower()).split())


def _instructions_followed(doc: Mapping[str, Any], answer: str) -> float:
    """IFEval's strict prompt-level accuracy; nan where a checker needs language data that is not installed."""
    with _no_downloads():
        try:
            from langdetect import DetectorFactory
            from lm_eval.tasks.ifeval.utils import process_results

            DetectorFactory.seed = 0  # the detector samples
            row = {
                "key": 0,
                "prompt": doc["question"],
                "instruction_id_list": doc["checks"],
                "kwargs": json.loads(doc["check_arguments"]),
            }
            return float(process_results(row, [answer])["prompt_level_strict_acc"])
        except (ImportError, LookupError, KeyError):
            return math.nan


_generated: dict[Kind, Callable[[Mapping[str, Any], str], float]] = {
    "short": _short_is_right,
    "instructions": _instructions_followed,
    "open": lambda doc, answer: math.nan,
}
"""Checkers of generated answers that are not lm-eval's exact match. An open answer has no right or wrong here."""


@contextmanager
def _no_downloads() -> Iterator[None]:
    """IFEval's checker fetches nltk data when it is imported; nothing is fetched that the user did not ask for."""
    import nltk

    own, nltk.download = nltk.download, lambda *_, **__: False
    try:
        yield
    finally:
        nltk.download = own


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval warns about every in-memory dataset and about defaults that are meant."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
