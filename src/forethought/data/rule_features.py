"""What the rule classifier sees of a text: TF-IDF of words, or the embedded model's hidden states.

TF-IDF needs nothing and reads thousands of texts a second. The mean hidden state
of a middle layer knows words that no training text holds; it needs the embedded model's
package and reads some thirty short texts a second on a core.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union

from forethought.engine.cache import cache_folder
from forethought.engine.embedded import embedded_model

LAYER = 8
"""Layers of the embedded model (of 30) that are run: chosen by cross-validation, and a quarter of the time."""
MAX_CHARACTERS = 2_000
"""A text is read up to here: the request stands in it, and memory stays flat."""
_MAX_TOKENS = 160
_BATCH = 32


def text_features() -> Any:
    """TF-IDF of words, word pairs and pieces of three to five characters, not yet fitted."""
    return make_union(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
        TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5), max_features=40_000),
    )


class EmbeddedFeatures:
    """Texts to mean hidden states after `LAYER` layers of the embedded model, in float32."""

    def __init__(self) -> None:
        """Keeps the first layers alone. Raises ModelError when the model's package is not installed."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = embedded_model()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._model.layers = self._model.layers[:LAYER]
        self._model.config.num_hidden_layers = LAYER
        self._model.norm = torch.nn.Identity()  # made for the last layer's states, not for the eighth's

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, hidden size). Batches hold texts of one length, so that little is padding."""
        ids = [self._ids(text) for text in texts]
        order = sorted(range(len(ids)), key=lambda index: (len(ids[index]), index))
        found = np.zeros((len(ids), int(self._model.config.hidden_size)), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            found[batch] = self._means([ids[index] for index in batch])
        return found

    def _ids(self, text: str) -> list[int]:
        """Tokens of a text; an empty text is its end alone."""
        ids: list[int] = self._tokenizer(text[:MAX_CHARACTERS], add_special_tokens=False)["input_ids"][:_MAX_TOKENS]
        return ids or [int(self._tokenizer.eos_token_id)]

    def _means(self, batch: list[list[int]]) -> NDArray[np.float32]:
        import torch

        longest = max(len(row) for row in batch)
        tokens = torch.zeros(len(batch), longest, dtype=torch.long)  # B T
        mask = torch.zeros(len(batch), longest)
        for place, row in enumerate(batch):
            tokens[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        with torch.inference_mode():
            hidden = self._model(input_ids=tokens, attention_mask=mask.long(), use_cache=False).last_hidden_state
        means: NDArray[np.float32] = ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
        return means


def cached_features(features: EmbeddedFeatures, texts: Sequence[str]) -> NDArray[np.float32]:
    """Features of training texts, from the cache folder where these very texts were read before."""
    key = hashlib.sha256("\x1e".join([f"1 {LAYER} {_MAX_TOKENS} {_BATCH}", *texts]).encode()).hexdigest()[:16]
    file = cache_folder() / "rule-features" / f"{key}.npy"
    if (kept := _read(file, len(texts))) is not None:
        return kept
    found = features(texts)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{key}.part-{os.getpid()}.npy")
    np.save(part, found)
    os.replace(part, file)
    return found


def _read(file: Path, n_texts: int) -> NDArray[np.float32] | None:
    """A cached array; None where there is none, or what stands there is damaged."""
    try:
        kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.ndim == 2 and len(kept) == n_texts else None
