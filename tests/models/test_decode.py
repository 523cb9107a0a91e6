"""Decoding: what transformers would write, greedy or drawn, in any company, and a verdict that is steered."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from forethought.models import prefix
from forethought.models.conversation import Conversation, Response
from forethought.models.decode import VERDICT_TOKENS, Decoder, Draws, Row, VerdictTokens, drawn, draws_for, in_order
from forethought.models.local import LocalModel
from forethought.models.prefix import MIN_SHARED, Node, passes, share
from tests.scripted import as_messages
from tests.tiny import tiny_adapter, tiny_folder, tiny_model, tiny_tokenizer

PROMPTS = ("Hello", "What is the capital of Norway, and how many people live there?", "Name three kinds of pasta.", "a")
NO_END = frozenset({0})


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.fixture(scope="module")
def verdict(tokenizer: Any) -> VerdictTokens:
    return VerdictTokens(
        anchor="Verdict:",
        lead_in=tuple(_ids(tokenizer, "\nVerdict:")),
        refuse=tuple(_ids(tokenizer, " refuse")),
        comply=tuple(_ids(tokenizer, " comply")),
        closing="</think>",
        close=tuple(_ids(tokenizer, "\n</think>\n")),
    )


def _generated(model: Any, prompt: list[int], n: int, end: int) -> list[int]:
    """What transformers' own greedy generation writes."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, eos_token_id=end, pad_token_id=0
    )
    return [int(token) for token in out[0, len(prompt) :]]


def test_batched_greedy_equals_generate(model: Any, tokenizer: Any) -> None:
    prompts = [_ids(tokenizer, text) for text in PROMPTS]
    rows = [Row(index, prompt, max_new=6 + 3 * index) for index, prompt in enumerate(prompts)]
    Decoder(model, tokenizer, NO_END).run(rows)
    for row, prompt in zip(rows, prompts, strict=True):
        assert row.made == _generated(model, prompt, row.max_new, end=0)


def test_rows_end_where_generate_ends(model: Any, tokenizer: Any) -> None:
    """Rows leave the batch at their own end; the others go on undisturbed."""
    prompts = [_ids(tokenizer, text) for text in PROMPTS]
    end = _generated(model, prompts[1], 8, end=0)[3]
    rows = [Row(index, prompt, max_new=12) for index, prompt in enumerate(prompts)]
    Decoder(model, tokenizer, frozenset({end})).run(rows)
    for row, prompt in zip(rows, prompts, strict=True):
        assert row.made == _generated(model, prompt, 12, end=end)
    assert rows[1].made[-1] == end
    assert max(len(row.made) for row in rows) == 12


def test_small_batches_change_nothing_and_report_progress(model: Any, tokenizer: Any) -> None:
    rows, others = ([Row(i, _ids(tokenizer, text), max_new=6) for i, text in enumerate(PROMPTS)] for _ in range(2))
    done = [row.index for row in Decoder(model, tokenizer, NO_END, batch_size=3).stream(iter(rows))]
    Decoder(model, tokenizer, NO_END).run(others)
    assert [row.made for row in rows] == [row.made for row in others]
    assert sorted(done) == [0, 1, 2, 3]


def _watched(tokenizer: Any, max_new: int = 4) -> list[Row]:
    """Rows that come to the anchor by themselves: it is forced on them, as if the model had written it."""
    anchor = _ids(tokenizer, "Intent: say hello.\nVerdict:")
    return [Row(i, _ids(tokenizer, text), max_new, watch=True, forced=list(anchor)) for i, text in enumerate(PROMPTS)]


@pytest.mark.parametrize(("threshold", "word"), [(-math.inf, "refuse"), (math.inf, "comply")])
def test_threshold_decides_the_verdict(
    model: Any, tokenizer: Any, verdict: VerdictTokens, threshold: float, word: str
) -> None:
    rows = _watched(tokenizer)
    Decoder(model, tokenizer, NO_END).run(rows, verdict, threshold)
    for row in rows:
        assert row.refuses is (word == "refuse")
        assert row.verdict_at is not None
        assert tokenizer.decode(row.made[row.verdict_at :]).startswith(f" {word}")
        assert not row.led


def test_log_odds_are_those_of_a_plain_forward(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    """Padded and cached, and still the logits of the whole sequence alone."""
    rows = _watched(tokenizer)
    Decoder(model, tokenizer, NO_END).run(rows, verdict)
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row.prompt + row.made[: row.verdict_at]])).logits[0, -1]
        assert row.log_odds is not None
        assert row.log_odds == pytest.approx(float(logits[verdict.refuse[0]] - logits[verdict.comply[0]]), abs=1e-4)
        assert row.refuses == (row.log_odds >= 0.0)


def test_threshold_is_included_in_refusing(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    rows = _watched(tokenizer)[:1]
    Decoder(model, tokenizer, NO_END).run(rows, verdict)
    odds = rows[0].log_odds
    assert odds is not None
    for threshold, refuses in ((odds, True), (math.nextafter(odds, math.inf), False)):
        again = _watched(tokenizer)[:1]
        Decoder(model, tokenizer, NO_END).run(again, verdict, threshold)
        assert again[0].refuses is refuses


def test_a_thought_that_rambles_on_after_its_verdict_is_closed(
    model: Any, tokenizer: Any, verdict: VerdictTokens
) -> None:
    """A random model never closes its thought by itself; the answer has its own room all the same."""
    rows = _watched(tokenizer, max_new=5)
    Decoder(model, tokenizer, NO_END).run(rows, verdict)
    for row in rows:
        assert row.closed_at == (row.verdict_at or 0) + VERDICT_TOKENS
        assert len(row.made) - row.closed_at == 5
        assert tokenizer.decode(row.made[: row.closed_at]).endswith("\n</think>\n")


def test_a_turn_that_would_end_at_its_verdict_is_answered(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    """The model's own end before the marker closes the thought; only one behind it ends the turn."""
    row = _watched(tokenizer, max_new=3)[0]
    Decoder(model, tokenizer, NO_END).run([row], verdict)
    after = (row.verdict_at or 0) + len(verdict.refuse if row.refuses else verdict.comply)
    again = _watched(tokenizer, max_new=3)[0]
    Decoder(model, tokenizer, frozenset({row.made[after]})).run([again], verdict)
    assert again.made[:after] == row.made[:after]
    assert tuple(again.made[after : after + len(verdict.close)]) == verdict.close
    assert again.closed_at is not None


def test_verdict_alone_stops_there(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    rows = _watched(tokenizer)
    for row in rows:
        row.stop_at_verdict = True
    Decoder(model, tokenizer, NO_END).run(rows, verdict, threshold=-math.inf)
    assert all(tokenizer.decode(row.made).endswith("Verdict: refuse") for row in rows)


def test_spent_budget_leads_to_the_anchor(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    """A random model never writes the anchor: its rows have to be led there, and say so."""
    rows = [Row(i, _ids(tokenizer, text), 3, watch=True, think_budget=4) for i, text in enumerate(PROMPTS)]
    Decoder(model, tokenizer, NO_END).run(rows, verdict)
    for row in rows:
        assert row.led
        assert row.log_odds is not None
        assert row.made[4 : 4 + len(verdict.lead_in)] == list(verdict.lead_in)
        assert row.verdict_at == 4 + len(verdict.lead_in)


def test_thought_that_ends_without_a_verdict_is_led_to_one(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    prompt = _ids(tokenizer, PROMPTS[1])
    end = _generated(model, prompt, 4, end=0)[3]  # none that the lead-in has, too
    row = Row(0, prompt, 3, watch=True, think_budget=50)
    Decoder(model, tokenizer, frozenset({end})).run([row], verdict)
    assert row.led
    assert row.log_odds is not None
    # The end that the model wanted is replaced, not kept before the anchor.
    assert end not in row.made[: row.verdict_at]


def test_unwatched_rows_have_no_verdict(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    row = Row(0, _ids(tokenizer, PROMPTS[0]), 4)
    Decoder(model, tokenizer, NO_END).run([row], verdict)
    assert (row.log_odds, row.refuses, row.led) == (None, None, False)


class _Script:
    """A model that writes given tokens, whatever it is asked."""

    device = torch.device("cpu")
    dtype = torch.float32
    config = LlamaConfig(num_hidden_layers=1)

    def __init__(self, tokens: list[int], size: int) -> None:
        self._tokens, self._size = tokens, size

    def get_decoder(self) -> Any:
        return lambda **kwargs: None

    def __call__(self, input_ids: torch.Tensor, past_key_values: Any, **kwargs: Any) -> CausalLMOutputWithPast:
        logits = torch.zeros(len(input_ids), 1, self._size)
        logits[:, -1, self._tokens.pop(0)] = 1.0
        return CausalLMOutputWithPast(logits=logits)


def _scripted(tokenizer: Any, text: str) -> Decoder:
    return Decoder(_Script(_ids(tokenizer, text), len(tokenizer)), tokenizer, NO_END)


def test_answer_from_elsewhere_stops_where_the_thought_closes(tokenizer: Any, verdict: VerdictTokens) -> None:
    text = "Intent: say hello.\nVerdict: comply. No rule applies.\n</think>\nHello to you and all the others"
    row = Row(0, [5], 40, watch=True, stop_at_comply=True)
    _scripted(tokenizer, text).run([row], verdict, threshold=math.inf)
    assert not row.led
    assert tokenizer.decode(row.made).strip().endswith("</think>")


def test_refusal_is_written_to_its_limit_all_the_same(tokenizer: Any, verdict: VerdictTokens) -> None:
    text = "Intent: say hello.\nVerdict: refuse. R4 Fraud: it would cheat.\n</think>\nI can't help with that, sorry."
    row = Row(0, [5], 6, watch=True, stop_at_comply=True)
    _scripted(tokenizer, text).run([row], verdict, threshold=-math.inf)
    assert row.refuses is True
    assert row.closed_at is not None
    assert len(row.made) - row.closed_at == 6


def test_closing_before_a_verdict_is_led(tokenizer: Any, verdict: VerdictTokens) -> None:
    """A thought that closes at once, as under forced empty thinking, must still decide."""
    row = Row(0, [5], 2, watch=True)
    _scripted(tokenizer, "Intent: hi\n</think>" + " and" * (VERDICT_TOKENS + 20)).run([row], verdict)
    assert row.led
    assert "</think>" not in tokenizer.decode(row.made[: row.verdict_at])


class _Fixed(random.Random):
    """Says one number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self._number = number

    def random(self) -> float:
        return self._number


def _fixed(number: float, temperature: float = 1.0) -> Draws:
    return Draws(temperature, _Fixed(number))


@pytest.mark.parametrize(("number", "token"), [(0.0, 0), (0.49, 0), (0.51, 2), (0.74, 2), (0.76, 3), (0.999999, 3)])
def test_a_token_is_found_by_the_inverse_of_its_distribution(number: float, token: int) -> None:
    """Probabilities .5, 0, .25, .25: the borders lie at .5 and .75, and the second is never drawn."""
    logits = torch.tensor([[math.log(2.0), -math.inf, 0.0, 0.0]])
    assert drawn(logits, [_fixed(number)]) == [token]


def test_what_is_impossible_is_not_drawn_at_the_border() -> None:
    assert drawn(torch.tensor([[-math.inf, 0.0, -math.inf]]), [_fixed(0.0)]) == [1]


def test_temperature_divides_the_logits() -> None:
    """Log-odds of ln 4 at temperature 2 are ln 2: the first token has two thirds. Rows keep their own."""
    logits = torch.tensor([[math.log(4.0), 0.0]]).repeat(4, 1)
    numbers = [_fixed(0.66, 2.0), _fixed(0.67, 2.0), _fixed(0.79, 1.0), _fixed(0.81, 1.0)]
    assert drawn(logits, numbers) == [0, 1, 0, 1]


def test_tokens_come_as_often_as_they_are_likely() -> None:
    draws = draws_for(1.0, 5, [1, 2])
    assert draws is not None
    logits = torch.tensor([[math.log(6.0), math.log(3.0), 0.0]])
    count = Counter(drawn(logits, [draws])[0] for _ in range(4000))
    # Standard error of a share of .6 among 4,000 is .008.
    assert [count[token] / 4000 for token in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_no_draws_at_temperature_0() -> None:
    assert draws_for(0.0, 3, [1]) is None


def _rows(tokenizer: Any, seeds: tuple[int, ...] = (0, 0, 0, 0), temperature: float = 1.0) -> list[Row]:
    prompts = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in PROMPTS]
    return [
        Row(place, prompt, 8 + place, draws=draws_for(temperature, seed, prompt))
        for place, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]


def _made(model: Any, tokenizer: Any, rows: list[Row], batch_size: int = 128) -> list[list[int]]:
    Decoder(model, tokenizer, NO_END, batch_size).run(rows)
    return [row.made for row in rows]


def test_a_sample_is_the_same_in_any_company(model: Any, tokenizer: Any) -> None:
    together = _made(model, tokenizer, _rows(tokenizer))
    assert _made(model, tokenizer, _rows(tokenizer), batch_size=2) == together
    for place, row in enumerate(_rows(tokenizer)):
        assert _made(model, tokenizer, [row]) == [together[place]]


def test_seeds_and_prompts_are_drawn_apart(model: Any, tokenizer: Any) -> None:
    one, other = (_made(model, tokenizer, _rows(tokenizer, (seed,) * 4)) for seed in (0, 1))
    assert all(first != second for first, second in zip(one, other, strict=True))
    prompt = [5, 6, 7]
    first, second = draws_for(1.0, 0, prompt), draws_for(1.0, 0, [*prompt, 8])
    assert first is not None
    assert second is not None
    assert first.random.random() != second.random.random()


def test_greedy_rows_are_untouched_beside_sampled_ones(model: Any, tokenizer: Any) -> None:
    alone = _made(model, tokenizer, _rows(tokenizer, temperature=0.0))
    mixed = _rows(tokenizer)
    for place in (0, 2):
        mixed[place].draws = None
    made = _made(model, tokenizer, mixed)
    assert [made[0], made[2]] == [alone[0], alone[2]]
    assert made[1] != alone[1]


def test_the_verdict_is_read_and_not_drawn(model: Any, tokenizer: Any) -> None:
    """Log-odds are those of a plain forward at temperature 1 over the sampled thought; the threshold decides."""
    ids = {text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (" refuse", " comply")}
    lead = tuple(tokenizer("\nVerdict:", add_special_tokens=False)["input_ids"])
    close = tuple(tokenizer("\n</think>\n", add_special_tokens=False)["input_ids"])
    verdict = VerdictTokens("Verdict:", lead, ids[" refuse"], ids[" comply"], "</think>", close)
    thoughts = set()
    for seed in range(6):
        prompt = list(tokenizer(PROMPTS[1], add_special_tokens=False)["input_ids"])
        row = Row(0, prompt, 3, watch=True, think_budget=7, draws=draws_for(3.0, seed, prompt))
        Decoder(model, tokenizer, NO_END).run([row], verdict)
        with torch.no_grad():
            logits = model(torch.tensor([row.prompt + row.made[: row.verdict_at]])).logits[0, -1]
        odds = float(logits[verdict.refuse[0]] - logits[verdict.comply[0]])
        assert row.log_odds == pytest.approx(odds, abs=1e-4)
        assert row.refuses == (odds >= 0.0)
        thoughts.add(tuple(row.made[:7]))
    assert len(thoughts) > 3


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    return LocalModel.load(str(tiny_folder()), tiny_adapter(tmp_path_factory.mktemp("a")), dtype="float32")


def _asked(seed: int, temperature: float = 1.0) -> Conversation:
    return Conversation(messages=as_messages("Hello"), think_budget=6, temperature=temperature, sample_seed=seed)


def test_seeded_conversations_are_samples(thinker: LocalModel) -> None:
    replies = thinker.reply([_asked(0), _asked(1), _asked(0), _asked(0, 0.0)], 4, threshold=math.inf)
    assert replies == thinker.reply([_asked(0), _asked(1), _asked(0), _asked(0, 0.0)], 4, threshold=math.inf)
    first, second, again, greedy = (reply for reply in replies if isinstance(reply, Response))
    assert first == again
    assert len({first.reasoning_text, second.reasoning_text, greedy.reasoning_text}) == 3
    (plain,) = thinker.reply([Conversation(messages=as_messages("Hello"), think_budget=6)], 4, threshold=math.inf)
    assert isinstance(plain, Response)
    assert (greedy.reasoning_text, greedy.answer) == (plain.reasoning_text, plain.answer)


def test_samples_behind_one_prompt_are_not_answered_as_one(tmp_path: Path) -> None:
    """The base's answers are asked once a prompt where they are greedy, and once a sample where they are not."""
    model = LocalModel.load(str(tiny_folder()))
    replies = model.reply([_asked(seed) for seed in range(4)] + [_asked(3, 0.0), _asked(4, 0.0)], 6)
    answers = [reply.answer for reply in replies if isinstance(reply, Response)]
    assert len(set(answers[:4])) == 4
    assert answers[4] == answers[5]


def test_known_greedy_answers_are_not_given_for_samples(tmp_path: Path) -> None:
    model = LocalModel.load(str(tiny_folder()))
    model.known_answers = {(model.prompt_text(as_messages("Hello")), 4): Response(answer="known")}
    replies = model.reply([_asked(0), _asked(0, 0.0)], 4)
    assert [reply.answer == "known" for reply in replies if isinstance(reply, Response)] == [False, True]


def test_a_greedy_conversation_is_dumped_as_before() -> None:
    """Keys of stored answers and seeds of other draws are made of dumps."""
    greedy = Conversation(messages=as_messages("Hello"))
    assert set(greedy.model_dump()) == {"messages", "prefill", "think_budget"}
    sampled = _asked(2)
    assert Conversation.model_validate_json(sampled.model_dump_json()) == sampled
    assert len({one.model_dump_json() for one in (greedy, sampled, _asked(3), _asked(2, 0.5))}) == 4


def _prompts(rng: random.Random) -> list[list[int]]:
    """Prompts of 1 to 150 tokens: alone, sharing one beginning, sharing two, and equal to another's."""

    def some(n: int) -> list[int]:
        return [rng.randrange(20, 1000) for _ in range(n)]

    head, long = some(20), some(90)
    prompts = [some(1), some(2), some(150), head, head + some(3)]
    prompts += [head + some(rng.randrange(1, 12)) for _ in range(6)]
    prompts += [head + long + some(rng.randrange(0, 9)) for _ in range(6)]
    other = some(47)  # what comes before differs in length within one level
    prompts += [other + some(rng.randrange(1, 12)) for _ in range(4)]
    return [*prompts, prompts[7], prompts[13]]


@pytest.mark.parametrize(("batch_size", "most_tokens"), [(128, None), (4, None), (1, None), (6, 300), (128, 10)])
def test_refilled_rows_are_what_generate_writes(
    model: Any, tokenizer: Any, batch_size: int, most_tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever runs beside a row, moves into its slot or shares its beginning, in however small a buffer."""
    monkeypatch.setattr(prefix, "_ROOM", 4)  # it has to be moved and grown many times
    monkeypatch.setattr(prefix, "PASS_TOKENS", 200)
    rng = random.Random(3)
    prompts = _prompts(rng)
    rows = [Row(place, prompt, max_new=rng.randrange(1, 30)) for place, prompt in enumerate(prompts)]
    done = list(Decoder(model, tokenizer, NO_END, batch_size, most_tokens=most_tokens).stream(iter(in_order(rows))))
    assert sorted(row.index for row in done) == list(range(len(rows)))
    for row in rows:
        assert row.made == _generated(model, row.prompt, row.max_new, end=0), row.index


def test_rows_are_given_back_before_all_are_taken(model: Any, tokenizer: Any) -> None:
    """A stream of any length is held a batch at a time."""
    taken: list[int] = []

    def endless() -> Iterator[Row]:
        for number in range(10_000):
            taken.append(number)
            yield Row(number, [30 + number % 7, 50, 60], max_new=2)

    stream = Decoder(model, tokenizer, NO_END, batch_size=8).stream(endless())
    first = [next(stream) for _ in range(3)]
    assert all(len(row.made) == 2 for row in first)
    assert len(taken) <= 8 + 1


def test_rows_side_by_side_are_bounded_by_tokens(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    own = prefix.Slots.next_token

    def watched(self: prefix.Slots) -> Any:
        mask, positions = own(self)
        seen.append((mask.shape[0], mask.shape[1]))
        return mask, positions

    monkeypatch.setattr(prefix.Slots, "next_token", watched)
    rows = [Row(n, [40 + n] * (10 + 10 * n), max_new=5) for n in range(12)]
    Decoder(model, tokenizer, NO_END, most_tokens=400).run(rows)
    assert all(len(row.made) == 5 for row in rows)
    assert max(count * span for count, span in seen) <= 400
    assert max(count for count, _ in seen) > 4  # short ones run side by side


def test_shared_beginnings_are_read_once() -> None:
    head, middle = list(range(100, 140)), list(range(200, 230))
    rows = [[*head, *middle, 1, 2], [*head, 7], [*head, *middle, 3], [5, 6], [*head, *middle, 1, 2]]
    levels = share(rows)
    nodes = [node for level in levels for node in level]
    assert sum(len(node.tokens) for node in nodes) == 40 + 30 + 2 + 1 + 1 + 2 + 2
    for place, row in enumerate(rows):
        (end,) = [node for node in nodes if place in node.rows]
        path = end.path()
        assert [token for node in path for token in node.tokens] == row
        assert [node.start for node in path] == [sum(len(n.tokens) for n in path[:i]) for i in range(len(path))]
    # A parent is filled before its children.
    level_of = {id(node): number for number, level in enumerate(levels) for node in level}
    assert all(level_of[id(node.parent)] < level_of[id(node)] for node in nodes if node.parent is not None)


def test_short_beginnings_and_capped_ones_are_not_shared() -> None:
    head = list(range(100, 100 + MIN_SHARED - 1))
    assert [len(level) for level in share([[*head, 1], [*head, 2]])] == [2]
    head.append(99)
    assert [len(level) for level in share([[*head, 1], [*head, 2]])] == [1, 2]
    assert [len(level) for level in share([[*head, 1], [*head, 2]], [len(head), len(head) - 1])] == [2]


def test_long_prompts_come_first_and_like_ones_together() -> None:
    prompts = [[1] * 5, [2] * 400, [3] * 300, [2] * 410, [1] * 6, [4] * 30, [1] * 200, [5] * 900]
    ordered = [row.index for row in in_order([Row(n, prompt, 1) for n, prompt in enumerate(prompts)])]
    assert ordered == [7, 1, 3, 2, 0, 4, 6, 5]


def _lengths(overhead: int, lengths: list[int], start: int = 0) -> list[list[int]]:
    nodes = [Node([1] * length, None, start) for length in lengths]
    return sorted(sorted(len(node.tokens) for node in one) for one in passes(nodes, overhead))


def test_nodes_are_divided_so_that_padding_and_passes_cost_least(monkeypatch: pytest.MonkeyPatch) -> None:
    # Together 4 x 50 = 200; apart 10 + 2 x 5 and 10 + 2 x 50: 130.
    assert _lengths(10, [5, 50, 4, 49]) == [[4, 5], [49, 50]]
    assert _lengths(100, [5, 50, 4, 49]) == [[4, 5, 49, 50]]
    monkeypatch.setattr(prefix, "PASS_TOKENS", 100)
    assert _lengths(1000, [40, 40, 40]) == [[40], [40, 40]]
    assert _lengths(1000, [40, 40, 40], start=60) == [[40], [40], [40]]
    assert _lengths(1000, [400]) == [[400]]
    assert list(passes([], 10)) == []
