"""Fits heads of the judge that reads (`reader.py`), and measures each source by a head that the others taught.

Nothing is chosen on labels: the penalty that suits one source does not suit the next, so a head is the mean of heads
from a weak one to a strong one, over layers of the model's middle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forethought.errors import InputError
from forethought.judges.base import nothing_said
from forethought.judges.labelled import Columns, labelled_files
from forethought.judges.reader import (
    VERSION,
    AnswerStates,
    Array,
    Head,
    Reader,
    ReaderSettings,
    TextReadings,
    opened,
    states_of,
)
from forethought.judges.trained import Flags, Lesson, group_folds, lessons_of, platt
from forethought.manifest import key_of
from forethought.metrics import auroc
from forethought.models.settings import EMBEDDED
from forethought.progress import Progress

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

_DEPTHS = (0.4, 0.5, 0.6)
"""Which layers are read, as shares of all."""
_STRENGTHS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Inverse regularisations whose heads are averaged."""
_BY_REFUSAL, _BY_LENGTH = 0.3, 0.3
"""What a refusal takes from a head's score and much that is said adds, in standard deviations of each: fixed, since
sources that people labelled say too differently how much they count. The more is said, the more help there is in it."""
_BLOCK = 100
"""Answers whose states stand in one file."""
_JITTER = 1e-5
"""Of the mean square of the rows: above what float32 rounds off."""


@dataclass(frozen=True)
class Taught:
    """Labelled answers, and what the model holds when it has read them."""

    lessons: tuple[Lesson, ...]
    layers: tuple[int, ...]
    """Whose states these are."""
    states: AnswerStates
    text: TextReadings
    """What is read of the answers without it."""
    families: Mapping[str, str]
    """Sources of one family never teach one another; a source that is not named is a family."""

    @cached_property
    def labels(self) -> Flags:
        """Whether each is harmful."""
        return np.array([one.positive for one in self.lessons], dtype=bool)

    @cached_property
    def parts(self) -> tuple[Array, str]:
        """A number a row, rows of one being held out together, and what they are: `sources`, or `groups` of requests
        where there are no two families, or one would leave nothing to learn from."""
        names = [self.families.get(one.source, one.source) for one in self.lessons]
        numbers = np.unique(names, return_inverse=True)[1]
        if numbers.any() and all(self.apart_from(numbers == part).any() for part in np.unique(numbers)):
            return numbers.astype(np.float64), "sources"
        return group_folds(self.lessons), "groups"

    def splits(self) -> Iterator[tuple[Flags, Flags]]:
        """(rows that teach, rows that are held out) of each part; parts without both labels to teach are left out."""
        for part in np.unique(self.parts[0]):
            tested = self.parts[0] == part
            rest = self.apart_from(tested)
            if len({*self.labels[rest].tolist()}) == 2:
                yield rest, tested

    def only(self, kept: Flags) -> Taught:
        """Some of the rows."""
        lessons = tuple(one for one, wanted in zip(self.lessons, kept, strict=True) if wanted)
        return replace(self, lessons=lessons, states=self.states[kept], text=self.text.only(kept))

    def apart_from(self, tested: Flags) -> Flags:
        """The other rows that share neither request nor answer with these."""
        held = [one.item for one, out in zip(self.lessons, tested, strict=True) if out]
        texts = {text for item in held for text in (item.request, item.answer) if text}
        free: Flags = np.array([not {one.item.request, one.item.answer} & texts for one in self.lessons], dtype=bool)
        return np.logical_and(free, ~tested)


def train_reader(
    files: Sequence[str],
    out: Path,
    model: str = EMBEDDED,
    columns: Columns | None = None,
    *,
    progress: Progress | None = None,
) -> Reader:
    """A judge of harm that reads with a model, trained on labelled files and written into `out`.

    Its settings hold the AUROC on each file when the others taught. States are kept beside it until it is done, so
    that a run that was stopped goes on. Raises InputError for a file without labels that can be read, or with labels
    of one kind, and ModelError for a model that can't be loaded.
    """
    lessons = lessons_of(labelled_files(files, "harmful", columns))
    name = str(Path(model).resolve()) if Path(model).exists() else model
    kept, reads = out / "states", opened(name)
    taught = read_lessons(lessons, reads, kept, progress=progress)
    reader = fit_reader(taught, held_out(taught), out.name, reads, name)
    reader.save(out)
    for file in kept.glob("*.npy"):
        file.unlink()
    kept.rmdir()
    return reader


def fit_reader(taught: Taught, scores: Array, name: str, model: LocalModel, reads: str = EMBEDDED) -> Reader:
    """A head fitted on all rows; the same rows give the same weights.

    Every source weighs the same, and in it both labels. Probabilities are calibrated on `scores`, which `held_out`
    gave. `reads`: how the head names the model.
    """
    slope, offset = platt(scores, taught.labels, lambda known: balanced(taught.only(known).lessons))
    head = fit_head(taught)
    settings = ReaderSettings(
        name=name,
        model=reads,
        layers=taught.layers,
        bias=slope * head.bias + offset,
        by_words=slope * head.by_text[0],
        by_refusal=slope * head.by_text[1],
        by_length=slope * head.by_text[2],
        rows=dict(sorted(Counter(one.source for one in taught.lessons).items())),
        calibrated_on=taught.parts[1],
        auroc={source: round(value, 4) for source, value in by_source(taught, scores).items()},
    )
    return Reader(settings, slope * head.weights, model)


def layers_read(model: LocalModel) -> tuple[int, ...]:
    """Layers whose states are read while a head is fitted."""
    from forethought.models.hidden_states import layer_count  # torch takes seconds

    return tuple(max(1, round(layer_count(model) * depth)) for depth in _DEPTHS)


def read_lessons(
    lessons: Sequence[Lesson],
    model: LocalModel,
    kept: Path | None = None,
    families: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Taught:
    """Lessons with their states, block by block; those that lie in the folder `kept` are not read again.

    Raises InputError where one label is missing.
    """
    usable = tuple(one for one in lessons if not nothing_said(one.item.answer))
    if len({one.positive for one in usable}) < 2:
        raise InputError(f"{len(usable)} usable rows", "all have one label, or there are none", "Give both labels")
    items, layers = [one.item for one in usable], layers_read(model)
    parts = []
    with (progress or Progress()).bar("reading") as bar:
        for start in range(0, len(items), _BLOCK):
            block = items[start : start + _BLOCK]
            texts = [[one.request, one.answer] for one in block]
            file = kept / f"{key_of([VERSION, model.name, list(layers), texts])}.npy" if kept else None
            if file is not None and file.is_file():
                parts.append(np.load(file, allow_pickle=False))
            else:
                parts.append(np.clip(states_of(model, block, layers), -6e4, 6e4).astype(np.float16))
                if file is not None:
                    _keep(file, parts[-1])
            bar.show(start + len(block), len(items))
    return Taught(usable, layers, np.concatenate(parts), TextReadings.of(items), families or {})


def _keep(file: Path, states: AnswerStates) -> None:
    """Writes whole or not at all: a run may be stopped."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name("part.npy")
    np.save(part, states)
    part.rename(file)


def held_out(taught: Taught) -> Array:
    """Log-odds of each row by a head that was fitted apart from its source; nan where none could be."""
    scores = np.full(len(taught.lessons), np.nan)
    for teaching, tested in taught.splits():
        scores[tested] = fit_head(taught.only(teaching)).scores(taught.states[tested], taught.text.only(tested))
    return scores


def fit_head(taught: Taught) -> Head:
    """The mean of logistic outputs on standardised states, from a strong penalty to a weak one; beside it, with weights
    of their own that nothing is fitted on, whether the answer refuses and how much it says.

    They are fitted in the space that the rows span, brought to one spread, and written out as weights of the states.
    """
    from scipy.linalg import solve_triangular
    from sklearn.linear_model import LogisticRegression

    weight = balanced(taught.lessons)
    flat = taught.states.reshape(len(taught.states), -1).astype(np.float32)
    mean = np.average(flat, axis=0, weights=weight)
    scale = (np.sqrt(np.average((flat - mean) ** 2, axis=0, weights=weight)) + 1e-4) * np.sqrt(flat.shape[1])
    scaled = ((flat - mean) / scale).astype(np.float32)
    alike = (scaled @ scaled.T).astype(np.float64)  # rows, rows
    root = np.linalg.cholesky(alike + _JITTER * np.trace(alike) / len(alike) * np.eye(len(alike)))
    seen = np.column_stack([root, taught.text.harm])
    total = np.zeros(seen.shape[1] + 1)
    for strength in _STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=500).fit(seen, taught.labels, weight)
        total += np.append(model.coef_[0], model.intercept_) / (seen @ model.coef_[0]).std() / len(_STRENGTHS)
    *of_states, of_words, bias = total
    back = scaled.T @ solve_triangular(root.T, np.array(of_states)) / scale
    refusal, length = (
        share / (reading.std() or 1.0)
        for share, reading in ((-_BY_REFUSAL, taught.text.refusal), (_BY_LENGTH, taught.text.length))
    )
    bias -= mean @ back + refusal * taught.text.refusal.mean() + length * taught.text.length.mean()
    return Head(back.reshape(taught.states.shape[1:]), float(bias), (float(of_words), refusal, length))


def balanced(lessons: Sequence[Lesson]) -> Array:
    """Weights that give each source the same total, and in it both labels; 1 in the mean."""
    counts = Counter((lesson.source, lesson.positive) for lesson in lessons)
    weight = np.array([1 / counts[lesson.source, lesson.positive] for lesson in lessons])
    weight /= weight.mean()
    return weight


def area_of(scores: Array, labels: Flags) -> float:
    """AUROC; nan where a label is missing."""
    return auroc(scores[labels].tolist(), scores[~labels].tolist())


def by_source(taught: Taught, scores: Array) -> dict[str, float]:
    """AUROC of each source's own rows, where both labels were held out."""
    sources, known = np.array([one.source for one in taught.lessons]), ~np.isnan(scores)
    areas = {
        str(source): area_of(scores[rows], taught.labels[rows])
        for source in np.unique(sources)
        if (rows := known & (sources == source)).any()
    }
    return {source: area for source, area in areas.items() if not np.isnan(area)}
