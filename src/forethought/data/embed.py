"""Texts as vectors, without a model or a network: TF-IDF and a truncated SVD (latent semantic analysis)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], NDArray[np.float64]]
"""Texts to vectors of unit length, shape (texts, dims). A text's vector may depend on the texts beside it."""

DIMS = 64


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
