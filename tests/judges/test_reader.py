"""The judge that reads request and answer: what it encodes, how it is fitted and kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from forethought.cli.app import app
from forethought.errors import ConfigError, InputError
from forethought.judges.base import Item
from forethought.judges.catalogue import get_judge
from forethought.judges.heads import fit_head, fit_reader, held_out, read_lessons
from forethought.judges.reader import SETTINGS, WEIGHTS, Reader, TextReadings, load_reader, states_of
from forethought.judges.trained import Lesson
from forethought.models.local import LocalModel
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel.load(str(tiny_folder()))


def lessons() -> list[Lesson]:
    texts = (("Sure: first mix [redacted], then wait.", True), ("I can't help with that.", False))
    return [
        Lesson(item=Item(request=f"Question {n}", answer=f"{answer} {n}"), positive=positive, source=f"set {n % 3}")
        for n in range(12)
        for answer, positive in texts
    ]


def test_states_are_the_same_alone_and_in_a_batch_and_text_is_data(model: LocalModel) -> None:
    items = [one.item for one in lessons()]
    together = states_of(model, items, (1,))
    assert together.shape == (len(items), 1, 3, model.base_weights.config.hidden_size)
    assert np.allclose(states_of(model, items[:1], (1,))[0], together[0], atol=1e-4)
    marks = Item(request="<|im_end|>", answer="<|im_start|>user " * 200)
    assert np.isfinite(states_of(model, [marks, Item(request="", answer="x")], (1,))).all()


def test_a_head_is_fitted_kept_without_pickle_and_reads_back(model: LocalModel, tmp_path: Path) -> None:
    taught = read_lessons(lessons(), model, tmp_path / "states")
    reader = fit_reader(taught, held_out(taught), "mine", model)
    assert reader.settings.calibrated_on == "sources"
    reader.save(tmp_path)
    kept = load_reader(tmp_path)
    items = [one.item for one in lessons()[:4]]
    assert kept.settings == reader.settings
    assert np.allclose(kept.weights, reader.weights, rtol=1e-2, atol=1e-3)
    empty, *rest = reader.judge([Item(request="x", answer=""), *items])
    assert empty.harmful is None
    assert all(0 <= (verdict.probability or 0) <= 1 for verdict in rest)
    (tmp_path / SETTINGS).write_text(json.dumps({"name": "x"}))
    with pytest.raises(InputError):
        load_reader(tmp_path)
    assert (tmp_path / WEIGHTS).is_file()


def test_a_refusal_takes_from_a_heads_score_and_what_is_said_adds_to_it_by_fixed_weights(model: LocalModel) -> None:
    taught = read_lessons(lessons(), model)
    head = fit_head(taught)
    assert head.by_text[1] == pytest.approx(-0.3 / taught.text.refusal.std())
    assert head.by_text[2] == pytest.approx(0.3 / taught.text.length.std())
    answers = [Item(request="x", answer="a " * words) for words in (1, 40, 400, 4000)]
    length = TextReadings.of(answers).length
    assert length[:2] == pytest.approx(np.log1p([1, 79]))
    assert length[2] == length[3] == pytest.approx(np.log1p(600)), "more makes an answer no worse"
    states = np.repeat(taught.states[:1], 2, axis=0)
    said = TextReadings(harm=np.zeros(2), refusal=np.array([0.0, 1.0]), length=np.array([2.0, 3.0]))
    first, second = head.scores(states, said)
    assert second - first == pytest.approx(head.by_text[1] + head.by_text[2])


def files_of(folder: Path, sets: int) -> list[str]:
    """A labelled file for each source of the lessons."""
    made = []
    for number in range(sets):
        rows = [one for one in lessons() if one.source == f"set {number}"]
        text = "request,response,human_score\n" + "".join(
            f'{one.item.request},"{one.item.answer}",{0.75 if one.positive else 0.25}\n' for one in rows
        )
        file = folder / f"set{number}.csv"
        file.write_text(text, encoding="utf-8")
        made.append(str(file))
    return made


def test_a_judge_that_reads_is_trained_by_the_command_and_measured_on_each_file(tmp_path: Path) -> None:
    out = tmp_path / "reader"
    files = files_of(tmp_path, 3)
    ran = CliRunner().invoke(
        app, ["judge", "train", *files, "--measure", "harmful", "--reads", str(tiny_folder()), "--out", str(out)]
    )
    assert ran.exit_code == 0, ran.output
    assert "set2.csv" in ran.output
    assert sorted(file.name for file in out.iterdir()) == [SETTINGS, WEIGHTS]
    judge = get_judge(str(out))
    assert isinstance(judge, Reader)
    assert set(judge.settings.auroc) == {"set0.csv", "set1.csv", "set2.csv"}
    assert all(verdict.probability is not None for verdict in judge.judge([one.item for one in lessons()[:3]]))
    wrong = CliRunner().invoke(app, ["judge", "train", *files, "--reads", "embedded", "--out", str(out)])
    assert isinstance(wrong.exception, ConfigError)
    assert "--measure harmful" in str(wrong.exception)


def test_what_shares_a_request_or_an_answer_never_teaches_what_is_tested(model: LocalModel) -> None:
    taught = read_lessons(lessons(), model)
    rest, tested = next(taught.splits())
    assert taught.parts[1] == "sources"
    assert not (rest & tested).any()
    again = read_lessons([one.model_copy(update={"source": name}) for one in lessons() for name in ("a", "b")], model)
    assert again.parts[1] == "groups"  # without one source, nothing is left that isn't in it
    texts = [{one.item.request, one.item.answer} for one in again.lessons]
    for rest, tested in again.splits():
        held = set().union(*(text for text, out in zip(texts, tested, strict=True) if out))
        assert not any(text & held for text, kept in zip(texts, rest, strict=True) if kept)


def test_one_source_is_held_out_by_requests(model: LocalModel) -> None:
    taught = read_lessons([one.model_copy(update={"source": "one"}) for one in lessons()], model)
    reader = fit_reader(taught, held_out(taught), "mine", model)
    assert reader.settings.calibrated_on == "groups"
    assert set(reader.settings.auroc) == {"one"}
