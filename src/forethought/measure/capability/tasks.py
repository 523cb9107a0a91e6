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

from forethought.measure.capability import CapabilityConfig
from forethought.measure.capability.questions import LETTERS, Kind, Question

MAX_TOKENS: dict[Kind, int] = {"choice": 32, "number": 256, "short": 32, "open": 128, "instructions": 512}
"""Longest generated answer by kind, in tokens."""
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
    name: str, kind: Kind, questions: Sequence[Question], config: CapabilityConfig, shots: Sequence[Question] = ()
) -> LocalTask:
    """An lm-eval task over questions of one kind; `shots` are worked examples put before each."""
    docs = [_as_doc(question, kind, config) for question in questions]
    task: dict[str, Any] = {
        "task": name,
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(docs)},
        "test_split": "test",
        "doc_to_text": "prompt",
        "doc_to_target": "target",
        "num_fewshot": len(shots),
        "metadata": {"version": 1.0},
    }
    if config.form == "generate":
        task |= _written(kind, config.max_tokens or MAX_TOKENS[kind])
    elif kind == "choice":
        task |= {"output_type": "multiple_choice", "doc_to_choice": "options"}
        task |= {"metric_list": [_mean("acc"), _mean("acc_norm")]}
    else:
        perplexity = {"metric": "perplexity", "aggregation": "mean", "higher_is_better": False}
        task |= {"output_type": "loglikelihood", "metric_list": [perplexity]}
    if shots:
        own = {key: task[key] for key in ("doc_to_text", "doc_to_target", "doc_to_choice") if key in task}
        samples = [_as_doc(shot, kind, config) for shot in shots]
        task["fewshot_config"] = {"sampler": "first_n", "samples": samples, **own}
    with _quiet():
        made = LocalTask(config=task)
    made.kind = kind
    return made


def _as_doc(question: Question, kind: Kind, config: CapabilityConfig) -> dict[str, Any]:
    """A question as a row of lm-eval's dataset: what is put, what is expected, and what its checker needs."""
    listed = kind == "choice" and (config.form == "generate" or config.choices == "letter")
    letters = LETTERS[: len(question.choices)]
    prompt = question.text if kind in {"open", "instructions"} else f"Question: {question.text}\nAnswer:"
    if listed:
        lines = [f"({letter}) {text}" for letter, text in zip(letters, question.choices, strict=True)]
        prompt = "\n".join([f"Question: {question.text}", *lines, "Answer:"])
    target: Any
    if kind == "choice":
        target = letters[question.right[0]] if config.form == "generate" else list(question.right)
    elif config.form == "loglikelihood" and kind == "number":
        target = question.answers[-1]  # the worked answer
    else:
        target = question.answers[0] if question.answers else ""
    return {
        "prompt": prompt,
        "target": target,
        "choices": list(question.choices),  # which lm-eval's filter reads
        "options": list(letters) if listed else list(question.choices),
        "answers": list(question.answers),
        "question": question.text,
        "checks": list(question.checks),
        "check_arguments": question.check_arguments,
    }


def _written(kind: Kind, max_tokens: int) -> dict[str, Any]:
    """How lm-eval reads an answer that the model writes."""
    task: dict[str, Any] = {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": max_tokens},
        "metric_list": [_mean("exact_match")],
    }
    if kind == "number":
        regex = {"function": "regex", "group_select": -1, "regex_pattern": _NUMBER}
        ignored = {"ignore_case": True, "regexes_to_ignore": [",", r"\$", r"\.$"]}
        task["filter_list"] = [{"name": "flexible-extract", "filter": [regex, {"function": "take_first"}]}]
        task["metric_list"] = [_mean("exact_match") | ignored]
    if kind == "choice":
        regex = {"function": "multi_choice_regex", "group_select": -1, "ignore_case": True, "regex_pattern": _LETTER}
        task["filter_list"] = [{"name": "letter", "filter": [regex, {"function": "take_first"}]}]
        task["metric_list"] = [_mean("exact_match") | {"ignore_punctuation": True}]
    return task


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
