"""Capability through lm-eval on a tiny model: its likelihoods, the thought taken out, refusals, resuming."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval", reason="needs the extra `capability` (lm-eval)")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from forethought.chat import render_prompt
from forethought.cli.terminal import console
from forethought.errors import ConfigError, InputError
from forethought.evaluation.capability import model_key
from forethought.measure.capability import CapabilityConfig, need_lm_eval
from forethought.measure.capability.model import ForethoughtLM, logits_needed, without_reasoning
from forethought.measure.capability.questions import Kind, Question, QuestionSet
from forethought.measure.capability.run import (
    BASE,
    DEFENDED,
    build_task,
    chosen_questions,
    compare_models,
    score_piece,
    score_set,
)
from forethought.measure.capability.summary import ItemScore
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response
from forethought.models.local import LocalModel
from forethought.records import Message
from tests.child import code
from tests.shell import run_here
from tests.tiny import tiny_adapter, tiny_folder, tiny_model, tiny_tokenizer

ALWAYS, NEVER = -1e9, 1e9
CHAT = CapabilityConfig(prompt="chat")


def make_questions(count: int = 6) -> list[Question]:
    """Questions of different lengths whose right option is the first, the second, the first, ..."""
    return [
        Question(
            text=f"Which {'very ' * n}fine thing is number {n}?",
            choices=("a loaf of bread", "tea", "a stone by the river"),
            right=(n % 2,),
        )
        for n in range(count)
    ]


def make_set(questions: Sequence[Question], kind: Kind = "choice") -> QuestionSet:
    return QuestionSet(name="tiny", kind=kind, questions=tuple(questions), columns={}, left_out={})


def thinking(folder: Path, threshold: float, answer_with: str = "base") -> LocalModel:
    """The tiny model with a random adapter that decides by its threshold alone."""
    return LocalModel.load(str(tiny_adapter(folder, answer_with=answer_with, threshold=threshold)), dtype="float32")


@lru_cache(maxsize=1)
def plain() -> LocalModel:
    return LocalModel(tiny_model(), tiny_tokenizer(), None)


def scores(lm: ForethoughtLM, config: CapabilityConfig = CHAT, kind: Kind = "choice", **fields: Any) -> list[ItemScore]:
    return score_piece(lm, "tiny", kind, fields.get("questions") or make_questions(), [], config)


def likelihoods(items: Sequence[ItemScore]) -> list[float]:
    return [value for item in items for value in item.log_likelihoods]


class Reference(HFLM):  # type: ignore[misc]
    """lm-eval's own model on the saved folder."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(pretrained=str(tiny_folder()), dtype="float32", device="cpu", batch_size=batch_size)

    def refused(self, context: str) -> bool:
        return False


@pytest.mark.parametrize("prompt", ["plain", "chat"])
def test_likelihoods_are_lm_evals_own_whatever_the_batch(prompt: Any) -> None:
    config = CapabilityConfig(prompt=prompt)
    reference: Any = Reference(batch_size=1)
    own, theirs = scores(ForethoughtLM(plain(), batch_size=7), config), scores(reference, config)
    assert likelihoods(own) == pytest.approx(likelihoods(theirs), abs=1e-4)
    assert [item.correct for item in own] == [item.correct for item in theirs]
    assert len(likelihoods(own)) == 18


def test_a_likelihood_is_the_sum_of_the_answers_token_log_probabilities() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    context, answer = "Question: What is hot?\nAnswer:", " a fire"
    n_context = len(tokenizer(context)["input_ids"])
    ids = tokenizer(context + answer, return_tensors="pt")["input_ids"]  # 1 T
    with torch.no_grad():
        log_probs = model(ids).logits[0].log_softmax(-1)  # T V
    by_hand = sum(float(log_probs[place - 1, ids[0, place]]) for place in range(n_context, ids.shape[1]))
    asked = Instance(request_type="loglikelihood", doc={}, arguments=(context, answer), idx=0)
    (found, _), _ = ForethoughtLM(plain()).loglikelihood([asked, asked])
    assert found == pytest.approx(by_hand, abs=1e-4)


def test_logits_needed_by_hand() -> None:
    # Rows of 9 and 5 positions: the short one's 3 answer logits stand at 2, 3, 4, which is 7 from the end.
    assert logits_needed([(8, 2), (3, 3)], 100) == 7
    assert logits_needed([(8, 2)], 100) == 2
    assert logits_needed([(120, 2)], 100) == 2


def test_after_comply_the_base_answers_exactly_as_it_does_alone(tmp_path: Path) -> None:
    local = thinking(tmp_path, NEVER)
    with local.adapter_off():
        alone = scores(ForethoughtLM(local.as_base()))
    assert scores(ForethoughtLM(local)) == alone
    assert likelihoods(scores(ForethoughtLM(LocalModel(local.model, local.tokenizer, None)))) != likelihoods(alone)


def test_a_refused_item_is_wrong_wherever_the_right_option_stands(tmp_path: Path) -> None:
    """An argmax over nan is the first option: it must not count as right."""
    items = scores(ForethoughtLM(thinking(tmp_path, ALWAYS)))
    assert all(item.refused and item.correct is False and item.correct_raw is False for item in items)
    assert likelihoods(items) == []


def test_what_a_refusal_says_is_never_taken_for_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = thinking(tmp_path, ALWAYS)
    refusal = Response(answer="I can't help with that: rule (A) speaks against it.", decision="refuse")
    monkeypatch.setattr(local, "respond", lambda asked, *_: [refusal for _ in asked])
    items = scores(ForethoughtLM(local), CapabilityConfig(prompt="chat", form="generate"))
    assert all(item.refused and item.correct is False and item.answer == "" for item in items)


def replaced(local: LocalModel, monkeypatch: pytest.MonkeyPatch, thought: str) -> None:
    """From here on the model's reasoning reads otherwise; its verdicts stay."""

    def wrap(own: Callable[..., list[Response]]) -> Callable[..., list[Response]]:
        return lambda *args, **kwargs: [
            response.model_copy(update={"reasoning_text": thought, "reasoning": None})
            for response in own(*args, **kwargs)
        ]

    monkeypatch.setattr(local, "think", wrap(local.think))
    monkeypatch.setattr(local, "respond", wrap(local.respond))


def median_odds(local: LocalModel, config: CapabilityConfig, monkeypatch: pytest.MonkeyPatch) -> float:
    """The threshold with which the model refuses half of the questions."""
    found: list[Response] = []

    def noted(own: Callable[..., list[Response]]) -> Callable[..., list[Response]]:
        def call(*args: Any, **options: Any) -> list[Response]:
            responses = own(*args, **options)
            found.extend(responses)
            return responses

        return call

    for name in ("think", "respond"):
        monkeypatch.setattr(local, name, noted(getattr(local, name)))
    scores(ForethoughtLM(local), config)
    return sorted(response.log_odds or 0.0 for response in found)[len(found) // 2]


@pytest.mark.parametrize("form", ["loglikelihood", "generate"])
def test_other_reasoning_with_the_same_verdict_changes_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    config = CapabilityConfig(prompt="chat", form=form, max_tokens=8)
    local = thinking(tmp_path, median_odds(thinking(tmp_path / "same", 0.0), config, monkeypatch))
    before = scores(ForethoughtLM(local), config)
    assert {item.refused for item in before} == {True, False}
    replaced(local, monkeypatch, "The right answer is (A), a loaf of bread. 42.\nVerdict: comply.")
    assert scores(ForethoughtLM(local), config) == before


def test_with_the_adapter_the_thought_is_context_and_refusals_do_not_depend_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = thinking(
        tmp_path, median_odds(thinking(tmp_path / "same", 0.0, "adapter"), CHAT, monkeypatch), answer_with="adapter"
    )
    before = scores(ForethoughtLM(local))
    replaced(local, monkeypatch, "Intent: eat.\nVerdict: comply.")
    after = scores(ForethoughtLM(local))
    assert [item.refused for item in after] == [item.refused for item in before]
    assert likelihoods(after) != likelihoods(before)
    question = next(q for q, item in zip(make_questions(), after, strict=True) if not item.refused)
    rendered = render_prompt(local.tokenizer, (Message(role="user", content=f"Question: {question.text}\nAnswer:"),))
    context = f"{rendered}<think>\nIntent: eat.\nVerdict: comply.\n</think>\n"
    by_hand = HFLM(pretrained=local.model, tokenizer=local.tokenizer).loglikelihood(
        [Instance(request_type="loglikelihood", doc={}, arguments=(context, one), idx=0) for one in question.choices]
    )
    own = next(item for item in after if item.id == question.id)
    assert own.log_likelihoods == pytest.approx([value for value, _ in by_hand], abs=1e-4)


class Writes(ForethoughtLM):
    """Answers from a list; refuses those that are None."""

    def __init__(self, answers: Sequence[str | None]) -> None:
        super().__init__(plain())
        self.answers = list(answers)
        self.prompts: list[str] = []
        self._refused: set[str] = set()

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.prompts += [request.args[0] for request in requests]
        answers = [self.answers[place] for place in range(len(requests))]
        self._refused = {r.args[0] for r, answer in zip(requests, answers, strict=True) if answer is None}
        return [answer or "" for answer in answers]

    def refused(self, context: str) -> bool:
        return context in self._refused


WRITE = CapabilityConfig(form="generate")


def test_lm_evals_filters_read_written_answers() -> None:
    choice = make_questions(6)  # right: A, B, A, B, A, B
    said = ["(A)", "B. tea", "The answer is (B).", "tea", "no idea", None]
    assert [i.correct for i in scores(Writes(said), WRITE, questions=choice)] == [True, True, False, True, False, False]
    number = [Question(text=f"How many {n}?", answers=("1200", "worked\n#### 1,200")) for n in range(5)]
    said = ["So it is $1,200.", "1200", "1200, no, 12", "none", None]
    found = scores(Writes(said), WRITE, "number", questions=number)
    assert [item.correct for item in found] == [True, True, False, False, False]
    assert [item.refused for item in found] == [False] * 4 + [True]
    short = [Question(text=f"Capital {n}?", answers=("Paris", "city of light")) for n in range(4)]
    said = ["It is Paris, of course", "parisian cafes", "The City of Light!", ""]
    assert [i.correct for i in scores(Writes(said), WRITE, "short", questions=short)] == [True, False, True, False]
    written = scores(Writes(["Some words."]), WRITE, "open", questions=[Question(text="Write.", answers=("x",))])
    assert (written[0].correct, written[0].answer, written[0].cause) == (None, "Some words.", "")


def test_instructions_are_checked_offline_and_an_unknown_one_is_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langdetect", reason="needs lm-eval's extra `ifeval`")
    pytest.importorskip("punkt", reason="needs the extra `capability`")
    import nltk

    monkeypatch.setattr(nltk, "download", lambda *_: pytest.fail("something was fetched"))
    told = [
        ("length_constraints:number_words", '[{"relation": "at least", "num_words": 3}]'),
        ("length_constraints:number_sentences", '[{"relation": "at least", "num_sentences": 3}]'),
        ("length_constraints:number_sentences", '[{"relation": "at least", "num_sentences": 2}]'),
        ("change_case:capital_word_frequency", '[{"capital_relation": "at least", "capital_frequency": 1}]'),
        ("no:such_check", "[{}]"),
    ]
    asked = [Question(text=f"Write {n}.", checks=(one,), check_arguments=args) for n, (one, args) in enumerate(told)]
    lm = Writes(["Dr. Smith went HOME. He slept."] * len(asked))
    found = scores(lm, WRITE, "instructions", questions=asked)
    assert [item.correct for item in found] == [True, False, True, True, None]
    assert [bool(item.cause) for item in found] == [False] * 4 + [True]


class Half:
    """A defence that refuses whatever speaks of number 1 or 3, before there is an answer."""

    name, able, decides_first = "half", Able(), True

    def __init__(self, inner: LocalModel, says: str = "") -> None:
        self.inner, self.says = inner, says

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        found = []
        for one in conversations:
            (reply,) = self.inner.reply([one], max(1, max_answer_tokens))
            refuses = any(word in one.messages[-1].content for word in ("number 1", "number 3"))
            refusal = Response(answer=self.says or "No.", decision=None if self.says else "refuse")
            found.append(refusal if refuses else reply)
        return found


@pytest.mark.parametrize("says", ["", "I'm sorry, but I can't help with that request."])
@pytest.mark.parametrize("form", ["loglikelihood", "generate"])
def test_what_stands_around_a_model_decides_and_its_refusals_are_wrong(tmp_path: Path, form: Any, says: str) -> None:
    config = CapabilityConfig(prompt="chat", form=form, max_tokens=4)
    respondent: Any = Half(plain(), says)
    (found,) = compare_models(plain(), "k", [make_set(make_questions())], config, tmp_path, respondent=respondent)
    base, defended = found.scores[BASE], found.scores[DEFENDED]
    refused = [any(f"number {n}" in q.text for n in (1, 3)) for q in found.questions]
    assert [item.refused for item in defended] == refused
    assert not any(item.correct for item, out in zip(defended, refused, strict=True) if out)
    kept = [place for place, out in enumerate(refused) if not out]
    assert [base[place].correct for place in kept] == [defended[place].correct for place in kept]
    assert [base[place].answer for place in kept] == [defended[place].answer for place in kept]
    values = {figure.name: figure.value for figure in found.figures()}
    assert values["capability_refused_tiny_defended"] == pytest.approx(1 / 3)


def test_options_are_not_compared_behind_a_defence_that_reads_answers(tmp_path: Path) -> None:
    respondent: Any = Half(plain())
    respondent.decides_first = False
    with pytest.raises(ConfigError, match="--form generate"):
        compare_models(plain(), "k", [make_set(make_questions())], CHAT, tmp_path, respondent=respondent)


def test_what_the_base_wrote_is_not_written_again_behind_comply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = thinking(tmp_path, NEVER)
    config = CapabilityConfig(prompt="chat", form="generate", max_tokens=4)
    written: list[Any] = []

    def stream(rows: Iterable[Any]) -> Iterator[Any]:
        written.extend(rows)
        return iter(())

    monkeypatch.setattr(local, "answerer", SimpleNamespace(stream=stream))
    (found,) = compare_models(local, "k", [make_set(make_questions(3))], config, tmp_path)
    assert [one.answer for one in found.scores[BASE]] == [one.answer for one in found.scores[DEFENDED]]
    assert not written


def test_reference_answers_are_measured_in_bits_per_byte(tmp_path: Path) -> None:
    questions = [Question(text="Describe bread.", answers=("It is baked.",))]
    (item,) = scores(ForethoughtLM(plain()), CHAT, "open", questions=questions)
    assert item.bits_per_byte is not None
    n_bytes = len("It is baked.")
    assert item.bits_per_byte == pytest.approx(-item.log_likelihoods[0] / 0.6931472 / n_bytes, rel=0.1)
    (refused,) = scores(ForethoughtLM(thinking(tmp_path, ALWAYS)), CHAT, "open", questions=questions)
    assert (refused.refused, refused.bits_per_byte) == (True, None)


def test_worked_examples_come_before_the_question_and_are_not_asked() -> None:
    config = CapabilityConfig(form="generate", shots=2, limit=3)
    asked, shots = chosen_questions(make_set(make_questions(8)), config)
    assert len(asked) == 3
    assert not {q.id for q in asked} & {q.id for q in shots}
    lm = Writes(["(A)"] * 3)
    score_piece(lm, "tiny", "choice", asked, shots, config)
    assert all(prompt.count("Answer:") == 3 and prompt.count("(C)") == 3 for prompt in lm.prompts)
    assert all(shots[0].text in prompt and prompt.endswith("Answer:") for prompt in lm.prompts)
    with pytest.raises(InputError, match="too few"):
        chosen_questions(make_set(make_questions(2)), config)


def test_letters_list_the_options_and_score_the_letter() -> None:
    task = build_task("tiny", "choice", make_questions(1), CapabilityConfig(choices="letter"))
    task.build_all_requests()
    arguments = [instance.args for instance in task.instances]
    assert [answer for _, answer in arguments] == [" A", " B", " C"]
    assert "(B) tea" in arguments[0][0]


def test_base_and_defended_get_the_same_questions(tmp_path: Path) -> None:
    local = thinking(tmp_path / "adapter", NEVER)
    seen: list[int] = []
    (found,) = compare_models(local, "k", [make_set(make_questions())], CHAT, tmp_path, on_done=seen.append)
    assert found.scores[BASE] == found.scores[DEFENDED]
    assert sum(seen) == 12
    values = {figure.name: figure.value for figure in found.figures()}
    assert values["capability_difference_tiny"] == 0.0
    assert values["capability_refused_tiny_defended"] == 0.0
    assert values["capability_chance_tiny"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("prompt", ["plain", "chat"])
def test_a_trained_model_that_does_not_think_is_compared_with_its_base(tmp_path: Path, prompt: Any) -> None:
    folder = tiny_adapter(tmp_path / "adapter", method="refusal", thinks=False)
    local = LocalModel.load(str(folder), dtype="float32")
    config = CapabilityConfig(prompt=prompt)
    (found,) = compare_models(local, "k", [make_set(make_questions(2))], config, tmp_path)
    expected = scores(ForethoughtLM(plain()), config, questions=list(found.questions))
    assert likelihoods(found.scores[BASE]) == pytest.approx(likelihoods(expected))
    assert likelihoods(found.scores[DEFENDED]) != pytest.approx(likelihoods(found.scores[BASE]))


def test_plain_prompts_to_a_model_that_thinks_are_an_error(tmp_path: Path) -> None:
    local = thinking(tmp_path / "adapter", NEVER)
    with pytest.raises(ConfigError, match="chat template"):
        compare_models(local, "k", [make_set(make_questions())], CapabilityConfig(prompt="plain"), tmp_path)
    with pytest.raises(ConfigError, match="chat template"):
        scores(ForethoughtLM(local), CapabilityConfig())


def test_a_merged_model_has_no_base_beside_it(tmp_path: Path) -> None:
    local = thinking(tmp_path, NEVER, answer_with="adapter")
    merged = LocalModel(local.model, local.tokenizer, local.settings)
    assert local.has_base
    assert not merged.has_base
    (found,) = compare_models(merged, "k", [make_set(make_questions(2))], CHAT, tmp_path)
    assert set(found.scores) == {DEFENDED}
    assert found.informative is None


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("Hi.", "Hi."),
        ("<think>\n3 or 4\n</think>\nIt is 5.", "It is 5."),
        ("<think>\nit is 7", ""),
        ("a</think>b", "b"),
    ],
)
def test_reasoning_of_other_models_is_taken_out(answer: str, kept: str) -> None:
    assert without_reasoning(answer) == kept


def test_another_model_prompt_or_option_is_scored_anew(tmp_path: Path) -> None:
    lm, qset = ForethoughtLM(plain()), make_set(make_questions(2))
    calls: list[str] = []
    for model, config in [("m", CHAT), ("m", CHAT), ("other", CHAT), ("m", CapabilityConfig(choices="letter"))]:
        before = len(list(tmp_path.iterdir()))
        score_set(lm, model, qset, config, tmp_path)
        calls.append("new" if len(list(tmp_path.iterdir())) > before else "kept")
    assert calls == ["new", "kept", "new", "new"]


def test_a_models_key_follows_its_files(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"one")
    before = model_key(tmp_path)
    assert model_key(tmp_path) == before != model_key(tmp_path.parent)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"two")
    assert model_key(tmp_path) != before


_CHILD = """
import sys, time
from pathlib import Path
from forethought.measure.capability.model import ForethoughtLM
from forethought.measure.capability.run import CapabilityConfig, score_set
from tests.measure.test_capability import make_questions, make_set, plain

def done(count):
    Path(sys.argv[1], "one-piece-done").touch()
    time.sleep(600)

folder = Path(sys.argv[1], "items")
score_set(ForethoughtLM(plain()), "m", make_set(make_questions(40)), CapabilityConfig(), folder, done)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    tiny_folder()
    code(_CHILD, tmp_path).kill_once((tmp_path / "one-piece-done").exists)
    asked: list[int] = []

    class Counts(ForethoughtLM):
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            asked.append(len(requests))
            return super().loglikelihood(requests, disable_tqdm)

    qset, config = make_set(make_questions(40)), CapabilityConfig()
    found = score_set(Counts(plain()), "m", qset, config, tmp_path / "items")
    assert asked == [8 * 3]  # of forty questions, 32 were kept
    anew = score_set(ForethoughtLM(plain()), "m", qset, config, tmp_path / "anew")
    assert [item.correct for item in found] == [item.correct for item in anew]
    assert likelihoods(found) == pytest.approx(likelihoods(anew), abs=1e-4)


def test_the_command_compares_with_the_base_and_writes_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, out = tiny_adapter(tmp_path / "adapter", threshold=ALWAYS), tmp_path / "out" / "results.json"
    file = tmp_path / "tiny.jsonl"
    rows = [{"question": q.text, "choices": q.choices, "gold": q.right[0]} for q in make_questions()]
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    monkeypatch.setattr(console, "width", 200)
    for _ in range(2):
        done = run_here("capability", adapter, file, "--limit", 4, "--batch-size", 8, "--out", out)
        assert done.code == 0, done.err
    figures = {figure["name"]: figure for figure in json.loads(out.read_text(encoding="utf-8"))["figures"]}
    assert figures["capability_refused_tiny_defended"]["value"] == 1.0
    assert figures["capability_tiny_defended"]["value"] == 0.0
    assert figures["capability_tiny_base"]["n"] == 4
    assert "uninformative" in done.out
    assert "Prompt: chat" in done.out
    items = [len(path.read_text(encoding="utf-8").splitlines()) for path in (tmp_path / "out").glob("results-items/*")]
    assert items == [4, 4]  # base and defended, each question once
    assert "--form generate" in run_here("capability", adapter, file, "--grader", "mockllm/model").err
    assert "is not NOUN=NAME" in run_here("capability", adapter, file, "--column", "answer").err


@pytest.mark.slow
def test_help_needs_no_heavy_library() -> None:
    code = "import sys, forethought.cli.capability; print({'torch', 'lm_eval'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_lm_eval_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'forethought\[capability\]'"):
        need_lm_eval()
