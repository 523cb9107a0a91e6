"""Disguises that have to be solved, from rows to figures, on the tests' model; and the recipe that does so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forethought.attempts.records import Attempt
from forethought.attempts.table import CELLS, LOG
from forethought.defences.fusion import intent_requests
from forethought.errors import ConfigError
from forethought.measure.comprehension import ASK_TO_DECODE, decoded
from forethought.metrics import Figure
from forethought.pipeline.recipe import SolveConfig
from forethought.pipeline.solving import disguises
from forethought.policy import default_policy
from forethought.progress import Progress
from forethought.records import user_request
from forethought.research.config import check, load_sweep
from forethought.research.setting import prepare_setting
from forethought.research.solve import against_k, of_the_better, run_solve, rungs, to_decode
from tests.research.sweep_content import sweep_file

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "solve.yaml"
EVALUATE: dict[str, Any] = {
    "attacks": ["sums:1", "turns:2", "leetspeak:2"], "n_direct": 4, "n_styled": 2, "n_ordinary": 4, "n_lookalike": 4,
    "n_styled_lookalike": 3, "max_answer_tokens": 4,
}  # fmt: skip
CHANGES: dict[str, Any] = {
    "methods": [
        {"id": "refusal_best", "name": "refusal_augmented"},
        {"id": "scot_best", "name": "scot", "around": "fused_trained | solved | on_demand"},
    ],
    "prompts": [], "wrappers": [], "reference": "scot_best", "fit_on": [{"path": "shipped:borderline", "limit": 20}],
    "contrasts": {"best_thoughtless": {"of": "scot_best", "against": "refusal_best"}},
    "build": {
        "own_answers": 8, "own_answer_tokens": 4, "refusal_share": 1.0,
        "solve": {"disguises": ["notes", "flip:words"], "rows": 20, "skill": 6},
    },
    "evaluate": EVALUATE,
}  # fmt: skip


@pytest.mark.slow
def test_from_rows_to_figures_and_again_without_a_model(tmp_path: Path) -> None:
    sweep = load_sweep(sweep_file(tmp_path, **CHANGES))
    done = run_solve([sweep], tmp_path / "run", None, Progress())
    model = Path(sweep.bases[0]).name
    names = {one.name for one in done.figures}
    for defence in ("base", "refusal_best", "scot_best"):
        for stem in ("k0", "k1", "k2", "core_k1", "core_k2", "solve_k2", "sums_1", "leetspeak_2"):
            assert {f"auroc_{stem}_{defence}_{model}", f"youden_{stem}_{defence}_{model}"} <= names
    assert {f"decoded_k1_{model}", f"decoded_k2_scot_best_{model}", f"tokens_k1_scot_best_{model}"} <= names
    assert {"diff_auroc_core_best_thoughtless", "p_auroc_core_best_thoughtless"} <= names
    assert "decodes none" in done.missing["diff_auroc_solve_best_thoughtless"]
    known = {one.name: one for one in done.figures}
    assert known[f"auroc_k1_base_{model}"].n == 6
    assert (tmp_path / "run" / "solve.svg").is_file()
    written = json.loads((tmp_path / "run" / "solve.json").read_text())
    assert {one["name"] for one in written["figures"]} == names
    again = run_solve([sweep], tmp_path / "run", None, Progress(), so_far=True)
    assert str(again.figures) == str(done.figures)  # nan is equal to itself as text
    log = tmp_path / "kept"
    log.mkdir()
    for name in (LOG, CELLS):
        shutil.copy(tmp_path / "run" / name, log)
    told = run_solve([sweep], tmp_path / "elsewhere", None, Progress(), so_far=True, kept=log)
    assert (str(told.figures), told.missing) == (str(done.figures), done.missing)
    rows = (tmp_path / "run").rglob("examples.jsonl")
    thoughts = [json.loads(line)["reasoning"] for file in rows for line in file.read_text().splitlines()]
    assert any("asked" in one for one in thoughts)
    assert any("asked" not in one for one in thoughts)
    (place,) = (tmp_path / "run").glob(f"{model}-s0/scot_best-*")
    setting = prepare_setting(sweep, sweep.bases[0], 0, tmp_path / "run", default_policy(), Progress())
    assert setting.fit_on
    assert not {one.id for one in setting.fit_on} & {one.id for one in setting.train}
    fitted = json.loads((place / "probe" / "manifest.json").read_text())["config"]["train"]
    assert fitted == len([*setting.train, *intent_requests(setting.examples), *setting.fit_on])


def test_the_recipe_can_be_run_and_tests_nothing_near_what_it_trains_on() -> None:
    sweep = load_sweep(RECIPE)
    assert isinstance(sweep.build.solve, SolveConfig)
    found = rungs(sweep, list(disguises(sweep.build.solve)))
    assert {one.kind for one in found} == {"core", "solve"}
    assert len([one for one in found if one.kind == "core" and not one.taught]) == 4
    taught = {one.name for one in found if one.taught}
    more = {"codewords:3", "chain:3", "payload_splitting:2", "payload_splitting:4", "caesar:1"}
    composed = {"mixed:1 | payload_splitting:2", "leetspeak:1 | acrostic:1"}
    assert taught == {*sweep.build.solve.harmless_only, *more, *composed}
    for k in (1, 2, 3):
        sides = sum((sweep.evaluate.n_styled_lookalike + (one.kind == "solve") * 16) for one in found if one.k == k)
        assert sides >= 80
    near = sweep.evaluate.model_copy(update={"attacks": (*sweep.evaluate.attacks, "votes:3")})
    with pytest.raises(ConfigError, match="takes work"):
        check(sweep.model_copy(update={"evaluate": near}))
    plain = sweep.evaluate.model_copy(update={"attacks": ("style_json",)})
    with pytest.raises(ConfigError, match="no disguise"):
        rungs(sweep.model_copy(update={"evaluate": plain}), ())


def test_the_first_part_asks_what_the_whole_asks_first() -> None:
    whole, part = load_sweep(RECIPE), load_sweep(RECIPE.with_name("solve_core.yaml"))
    assert whole.evaluate.attacks[: len(part.evaluate.attacks)] == part.evaluate.attacks
    assert (part.name, part.build, part.methods) == (whole.name, whole.build, whole.methods)


def test_a_method_that_changes_its_thoughts_alone_has_the_rows_of_the_others() -> None:
    for file in ("solve.yaml", "solve_1_5b.yaml"):
        sweep = load_sweep(RECIPE.with_name(file))
        (filler,) = (one for one in sweep.methods if one.label == "scot_filler")
        assert sweep.build.solve is not None
        assert sweep.build_of(filler.build).solve == sweep.build.solve.model_copy(update={"thought": "filler"})


def test_sweeps_of_one_model_cannot_be_told_together(tmp_path: Path) -> None:
    sweep = load_sweep(RECIPE)
    with pytest.raises(ConfigError, match="share a name or a model"):
        run_solve([sweep, sweep], tmp_path, None, Progress())


def test_what_attackers_write_is_told_of_the_model_that_gains_more() -> None:
    def of(kind: str, ending: str, value: float) -> Figure:
        return Figure(name=f"{kind}_solve_best{ending}", value=value, n=80, unit="difference")

    values = {("diff_auroc", ""): 0.05, ("diff_auroc", "_b"): 0.2, ("diff_youden", ""): 0.7, ("diff_youden", "_b"): 0.3}
    found = [of(kind, ending, value) for (kind, ending), value in values.items()]
    found += [of(kind, ending, 0.01) for kind in ("p_auroc", "p_youden") for ending in ("", "_b")]
    told = {one.name: one.value for one in of_the_better(found, ["best"], ["a", "b"])}
    assert (told["diff_auroc_solve_best"], told["diff_youden_solve_best"]) == (0.2, 0.3)
    assert (told["diff_auroc_solve_best_a"], told["diff_youden_solve_best_a"]) == (0.05, 0.7)
    assert not of_the_better(found, ["best"], ["a"])  # one model: nothing to choose from


def test_a_text_counts_as_decoded_but_for_one_word_in_ten_capitals_and_signs() -> None:
    plain = "How do I mend the old kettle of my aunt at home?"
    assert decoded(plain, "how do i mend the old kettle of my aunt at home")
    assert decoded(plain, plain.replace("old", "odd"))
    assert not decoded(plain, plain.replace("old kettle", "odd cattle"))
    assert not decoded(plain, f"Sure! {plain} And here is what I know of it, step by step.")
    assert not decoded(plain, "")


def test_the_order_to_decode_stands_behind_the_message() -> None:
    attempt = Attempt(id="a", attack="sums:1", request=user_request("Text 3: x"), cells=("sums:1:lookalike",))
    asked = to_decode(attempt)
    assert asked.request.text == f"Text 3: x\n\n{ASK_TO_DECODE}"
    assert (asked.id, asked.cells) == ("decode/a", attempt.cells)


def test_the_plot_has_a_column_a_kind_of_family_and_two_rows_a_model() -> None:
    names = ("k0_scot", "k2_scot", "taught_k1_scot", "solve_k2_scot")
    figures = [
        Figure(name=f"{stem}_{name}_{model}", value=0.7, low=0.6, high=0.8, n=80)
        for stem in ("auroc", "youden")
        for name in names
        for model in ("a", "b")
    ]
    sweep, settings = SimpleNamespace(defences=("base", "scot")), [SimpleNamespace(base=base) for base in ("a", "b")]
    plot = against_k(cast(Any, [sweep]), figures, cast(Any, settings))
    assert plot is not None
    canvas = plot.draw()
    titles = [axis.get_title(loc="left") or axis.get_title() for axis in canvas.axes]
    assert titles[:3] == [
        "AUROC, a, unseen in training",
        "AUROC, a, two texts, skill taught",
        "AUROC, a, what attackers write",
    ]
    assert titles[9:] == [title.replace("AUROC, a", "J, b") for title in titles[:3]]
    drawn = [[round(x) for x in axis.lines[0].get_xdata()] for axis in canvas.axes[:3]]
    assert drawn == [[0, 2], [0, 1], [0, 2]]  # plain pairs stand at 0 of each
    aurocs, youdens = ({axis.get_ylim() for axis in canvas.axes[at : at + 3]} for at in (0, 3))
    assert (len(aurocs), len(youdens)) == (1, 1)
    assert aurocs != youdens  # each row has a vertical axis of its own
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["scot"]
