"""Texts as TF-IDF vectors, the vocabulary learned from the training split alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Tfidf:
    """How texts become vectors (scikit-learn's ``TfidfVectorizer``; rows have length 1).

    Args:
        max_features: at most so many terms, the most frequent.
        min_df: a term must occur in at least so many training texts.
        ngram_range: shortest and longest run of words taken as a term.
        sublinear_tf: count a term with 1 + log(occurrences) instead of the occurrences.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> fitted = Tfidf(min_df=1, ngram_range=(1, 1)).fit(("red fish", "blue fish"))
        >>> fitted.transform(("red bird",))
        tensor([[0., 0., 1.]])
    """

    max_features: int = 5000
    min_df: int = 2
    ngram_range: tuple[int, int] = (1, 2)
    sublinear_tf: bool = True

    def __post_init__(self) -> None:
        if self.max_features < 1 or self.min_df < 1:
            raise ValueError(
                "max_features and min_df must be at least 1; "
                f"got {self.max_features} and {self.min_df}"
            )
        low, high = self.ngram_range
        if not 1 <= low <= high:
            raise ValueError(f"ngram_range must be (low, high), 1 <= low <= high; got {low, high}")

    def fit(self, texts: tuple[str, ...]) -> FittedTfidf:
        """Learn the vocabulary and the term weights.

        Args:
            texts: the training texts.

        Returns:
            What makes vectors of texts.

        Raises:
            ValueError: if no term occurs often enough.
        """
        vectorizer = _vectorizer(self)
        try:
            vectorizer.fit(texts)
        except ValueError as error:
            raise ValueError(
                f"no term occurs in min_df={self.min_df} of the {len(texts)} training texts; "
                "take more texts or a smaller min_df"
            ) from error
        return FittedTfidf(self, vectorizer)


class FittedTfidf:
    """Makes vectors of texts; built by `Tfidf.fit` or from saved `extras`."""

    def __init__(self, settings: Tfidf, vectorizer: Any) -> None:
        self.settings = settings
        self._vectorizer = vectorizer

    @classmethod
    def from_extras(cls, extras: Mapping[str, Any]) -> FittedTfidf:
        """Build the encoder again from what `extras` returned, for prediction later.

        Example:
            >>> fitted = Tfidf(min_df=1).fit(("red fish", "blue fish"))
            >>> again = FittedTfidf.from_extras(fitted.extras())
            >>> bool((again.transform(("red",)) == fitted.transform(("red",))).all())
            True
        """
        chosen = dict(extras["tfidf"])
        chosen["ngram_range"] = tuple(chosen["ngram_range"])
        settings = Tfidf(**chosen)
        vocabulary = {term: column for column, term in enumerate(extras["vocabulary"])}
        vectorizer = _vectorizer(settings, vocabulary)
        vectorizer.idf_ = np.asarray(extras["idf"], dtype=np.float32)
        return cls(settings, vectorizer)

    def transform(self, texts: Sequence[str]) -> Tensor:
        """Return dense float32 vectors ``(N, terms)`` of length 1, or 0 where no term is known."""
        return torch.from_numpy(self._vectorizer.transform(texts).toarray())

    def extras(self) -> dict[str, object]:
        """Return the fitted vocabulary (terms in column order), weights and settings as plain data.

        The keys are ``"vocabulary"``, ``"idf"`` and ``"tfidf"``.
        """
        return {
            "vocabulary": self._vectorizer.get_feature_names_out().tolist(),
            "idf": self._vectorizer.idf_.tolist(),
            "tfidf": asdict(self.settings),
        }


def _vectorizer(settings: Tfidf, vocabulary: dict[str, int] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        vocabulary=vocabulary,
        max_features=settings.max_features,
        min_df=settings.min_df,
        ngram_range=settings.ngram_range,
        sublinear_tf=settings.sublinear_tf,
        dtype=np.float32,
    )
