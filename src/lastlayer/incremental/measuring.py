"""What a state predicts on test examples of the classes seen, without knowing the task."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lastlayer.data import Split
from lastlayer.evaluation import TaskMatrix, confusion_counts
from lastlayer.incremental.state import PREDICTORS, LearnerState


def confusions(state: LearnerState, test: Split) -> dict[str, list[list[int]] | None]:
    """Return by predictor the (K, K) counts of true (rows) and predicted classes.

    Args:
        state: after some task.
        test: examples whose labels are rows; those of classes not seen yet are left out.

    Returns:
        None for the nearest mean where a class has no exemplar.
    """
    seen = test.target < state.num_classes
    target = test.target[seen]
    features = state.trained.features_of(test.inputs[seen])
    found: dict[str, list[list[int]] | None] = {}
    for predictor in PREDICTORS:
        if predictor == "nearest-mean" and not state.has_exemplars():
            found[predictor] = None
            continue
        predicted = state.log_prob(features, predictor).argmax(dim=-1)
        counts: Tensor = confusion_counts(predicted, target, state.num_classes)
        found[predictor] = counts.long().tolist()
    return found


def incremental_summary(
    results: list[dict[str, Any]], labels: list[int], class_names: list[str], predictor: str
) -> dict[str, Any]:
    """Return the summary's entry on the sequence of tasks.

    Args:
        results: what was found after each task.
        labels: the classes in order of arrival.
        class_names: their names, in that order.
        predictor: the one that the method predicts with.
    """
    sizes = [result["num_new"] for result in results]
    entry: dict[str, Any] = {
        "sizes": sizes,
        "class_order": labels,
        "class_names": class_names,
        "predictor": predictor,
        "alphas": [result["alpha"] for result in results],
        "alignments": [result["alignment"] for result in results],
    }
    for name in PREDICTORS:
        tables = [result["confusions"][name] for result in results]
        entry[name] = None
        if all(table is not None for table in tables):
            measures = TaskMatrix.from_confusions(tables, sizes).as_dict()
            entry[name] = {"confusions": tables, "measures": measures}
    return entry
