"""Which demonstrations of a style an LLM teacher is shown: varied ones, none near an evaluation request.

The SCoT paper embeds example prompts, clusters them with k-means (k = 8) and takes the
item nearest each centroid (arXiv 2501.19180). Its published code drew them from the
benchmark that it then tested on; here whatever is near an evaluation request is left out.
Texts are embedded without a model or a network: TF-IDF and a truncated SVD (latent semantic analysis).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forethought.data.dedupe import Pieces, jaccard, pieces
from forethought.data.evolve import Demonstration, Operator
from forethought.data.readers import read_rows
from forethought.data.sources import SourceSpec, load_requests
from forethought.errors import InputError
from forethought.records import Request

DEMONSTRATIONS = 8
"""How many the paper shows."""
NEAR = 0.5
"""Jaccard similarity (content words and their pairs) from which a demonstration is near an evaluation request."""
HELD = 0.8
"""Share of an evaluation request's content words in a styled text from which it counts as a variant of it."""
_FEWEST_WORDS = 3
_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")
DIMS = 64
"""Most dimensions of an embedded text."""


def lsa_embed(texts: Sequence[str]) -> NDArray[np.float64]:
    """Vectors fitted on the texts themselves, shape (texts, at most DIMS); the same for the same texts.

    Words count with their neighbours and their pieces, so that an inflected or misspelt word
    is near its plain form. A text without any word is the zero vector.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union
    from sklearn.preprocessing import normalize

    if not any(character.isalnum() for text in texts for character in text):
        return np.zeros((len(texts), 1))
    features: Any = make_union(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\w+"),
        TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5)),
    )
    matrix = features.fit_transform(list(texts))
    dims = min(DIMS, min(matrix.shape) - 1)
    if dims < 1 or len(set(texts)) == 1:  # one text: there is nothing to decompose
        return np.asarray(normalize(matrix.toarray()), dtype=np.float64)
    # "arpack" depends on its start vector alone, which the seed sets.
    vectors = TruncatedSVD(dims, algorithm="arpack", random_state=0).fit_transform(matrix)
    return np.asarray(normalize(vectors), dtype=np.float64)


def choose_demonstrations(
    operator: Operator,
    k: int = DEMONSTRATIONS,
    seed: int = 0,
    against: Sequence[Request] = (),
    folder: Path | None = None,
) -> tuple[Demonstration, ...]:
    """At most k varied demonstrations of the operator's pool, none of them near a request of `against`.

    `folder` may hold a pool of the user's own, in a file named after the operator.
    All usable ones where the pool holds no more than k. In the order of the pool.
    Raises InputError for a pool that can't be read.
    """
    pool = usable_demonstrations(operator_pool(operator, folder), against)
    if len(pool) <= k:
        return tuple(pool)
    if k < 1:
        return ()
    from sklearn.cluster import KMeans

    vectors = lsa_embed([shown.rewritten for shown in pool])
    distinct = len(np.unique(vectors, axis=0))
    centres = KMeans(min(k, distinct), random_state=seed, n_init=10).fit(vectors).cluster_centers_
    distances = np.linalg.norm(vectors[:, None, :] - centres[None, :, :], axis=2)  # (pool, centres)
    chosen: list[int] = []
    for centre in range(distances.shape[1]):
        ranked = np.argsort(distances[:, centre], kind="stable")
        chosen.append(int(next(place for place in ranked if int(place) not in chosen)))
    return tuple(pool[place] for place in sorted(chosen))


def operator_pool(operator: Operator, folder: Path | None = None) -> tuple[Demonstration, ...]:
    """The operator's demonstrations: of its own file, its `pool`, and `folder/NAME.csv` (or another format).

    Identical ones once. Raises InputError for a pool that can't be read, a missing folder, or
    two files of the operator's name.
    """
    found = list(operator.demonstrations)
    if operator.pool is not None:
        found += read_pool(operator.pool)
    if folder is not None:
        if not folder.is_dir():
            raise InputError(folder, "there is no such folder of demonstrations", "Check its path")
        files = [folder / f"{operator.name}{suffix}" for suffix in _FORMATS]
        present = [file for file in files if file.is_file()]
        if len(present) > 1:
            raise InputError(present[1], f"'{present[0].name}' is there as well", "Keep one file for each operator")
        found += [shown for file in present for shown in read_pool(str(file))]
    return tuple(dict.fromkeys(found))


def read_pool(spec: str) -> list[Demonstration]:
    """Demonstrations from any readable source.

    Rows with the columns `request` and `rewritten` are pairs; of other files the column that
    reads like requests is taken as styled texts whose originals aren't known.
    Raises InputError where nothing is there, or nothing of use.
    """
    rows = [row for _, row in read_rows(spec)]
    if not any("rewritten" in row for row in rows):
        return [Demonstration(request="", rewritten=one.text) for one in load_requests(SourceSpec(path=spec), None)]
    pairs: list[Demonstration] = []
    for number, row in enumerate(rows, start=1):
        request, rewritten = (str(row.get(column) or "").strip() for column in ("request", "rewritten"))
        if not rewritten:
            place = f"{spec}, row {number}"
            raise InputError(place, "has no text in the column 'rewritten'", "Fill it or drop the row")
        pairs.append(Demonstration(request=request, rewritten=rewritten))
    return pairs


def usable_demonstrations(pool: Iterable[Demonstration], against: Sequence[Request]) -> list[Demonstration]:
    """The demonstrations that are near no request of `against`, the evaluation sets."""
    known = [pieces(text) for text in dict.fromkeys(request.plain for request in against)]
    places: dict[str, list[int]] = defaultdict(list)
    for number, known_pieces in enumerate(known):
        for word in known_pieces.words:
            places[word].append(number)
    kept: list[Demonstration] = []
    for shown in pool:
        texts = [pieces(text) for text in (shown.request, shown.rewritten) if text]
        nearby = {number for text in texts for word in text.words for number in places.get(word, ())}
        if not any(_near(text, known[number]) for number in nearby for text in texts):
            kept.append(shown)
    return kept


def _near(shown: Pieces, tested: Pieces) -> bool:
    held = len(shown.words & tested.words) / len(tested.words) if len(tested.words) >= _FEWEST_WORDS else 0.0
    return held >= HELD or jaccard(shown, tested) >= NEAR
