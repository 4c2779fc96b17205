"""The vocabulary of a text data set: texts as word ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sklearn.feature_extraction.text import CountVectorizer

from service.datasets.words import split_words

PADDING, UNKNOWN = 0, 1
"""Word ids of positions after the end of a text, and of words outside the vocabulary."""


class Words:
    """Turns texts into word ids; the most frequent words (`split_words`) have ids."""

    def __init__(self, vocabulary_size: int, max_length: int) -> None:
        self._vectorizer = CountVectorizer(analyzer=list, max_features=vocabulary_size)
        self._max_length = max_length

    @property
    def ids(self) -> int:
        """Number of ids, including padding and the unknown word."""
        return len(self._vectorizer.vocabulary_) + 2

    def learn(self, texts: Sequence[str]) -> torch.Tensor:
        """Build the vocabulary from these texts, and return their ids (N, words), int32.

        Raises ValueError if no text has a word.
        """
        tokens = self._tokens(texts)
        if not any(tokens):
            raise ValueError("no training text contains a word (a run of letters or digits)")
        self._vectorizer.fit(tokens)
        return self._ids(tokens)

    def read(self, texts: Sequence[str]) -> torch.Tensor:
        """Ids (N, words) of texts, int32; cut at `max_length`, padded to the longest."""
        return self._ids(self._tokens(texts))

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        return [split_words(text) for text in texts]

    def _ids(self, tokens: Sequence[Sequence[str]]) -> torch.Tensor:
        id_of = {word: int(position) + 2 for word, position in self._vectorizer.vocabulary_.items()}
        width = max(1, min(self._max_length, max(map(len, tokens), default=1)))
        ids = torch.full((len(tokens), width), PADDING, dtype=torch.int32)
        for row, words in enumerate(tokens):
            if words:
                numbers = [id_of.get(word, UNKNOWN) for word in words[:width]]
                ids[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int32)
        return ids
