"""Draw what a trained DropMax head is in doubt about: the paper's Figure 4 for one run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lastlayer._checks import check_count
from lastlayer._inputs import Inputs
from lastlayer.heads import Classifier, DropMax
from lastlayer.heads.retain import DeterministicAttention
from lastlayer.report.retain import retain_confusion, retain_panels
from lastlayer.report.style import save_figure
from lastlayer.training import RunDirectory
from lastlayer.training.fit import load_classifier, load_run_splits
from lastlayer.training.measuring import EVALUATION_BATCH

MOST_PER_CLASS = 2


def explain_run(
    path: str | Path,
    *,
    base: str | Path | None = None,
    data_dir: str | None = None,
    count: int = 10,
    out: Path | None = None,
) -> Path:
    """Draw a run's retain probabilities for easy and hard test inputs; return the picture's path.

    Easy inputs are those whose right class the base model gives the highest probability, one per
    class; hard ones those that it gets wrong, the most wrong first, at most two per class. The base
    is a finished run on the same data, such as the softmax of the same seed, looked for beside the
    run if None; where there is none the run itself chooses, and no wrong prediction is marked
    unless it is its own. ``count`` is of either kind; the picture is ``figures/retain.png`` in the
    run if ``out`` is None.
    """
    check_count("count", count)
    run = RunDirectory.open(path)
    classifier = load_classifier(run)
    head = classifier.head
    if not isinstance(head, DropMax | DeterministicAttention):
        raise ValueError(
            f"{run.path} has the head {run.config().head.name!r}, which has no retain "
            "probabilities; explain a dropmax or attention run"
        )
    test = load_run_splits(run, data_dir=data_dir).test
    chooser = _base_run(run, base) or run
    predictions = chooser.predictions()
    log_prob = predictions["log_prob"]
    if not torch.equal(predictions["target"], test.target):
        raise ValueError(
            f"{chooser.path} was not measured on the {len(test)} test inputs of {path}"
        )
    easy, hard = easy_and_hard(log_prob, test.target, count)
    prior, posterior = _retained(classifier, test.inputs, test.target)
    is_image = test.inputs.dim() == 4
    figure = retain_panels(
        retain_easy=prior[easy],
        target_easy=test.target[easy],
        retain_hard=prior[hard],
        target_hard=test.target[hard],
        posterior_hard=None if posterior is None else posterior[hard],
        base_prediction=log_prob[hard].argmax(dim=-1),
        confusion=retain_confusion(prior, test.target),
        images_easy=test.inputs[easy] if is_image else None,
        images_hard=test.inputs[hard] if is_image else None,
        class_names=run.summary()["class_names"],
    )
    return save_figure(figure, run.path / "figures" / "retain.png" if out is None else out)


def _base_run(run: RunDirectory, base: str | Path | None) -> RunDirectory | None:
    if base is not None:
        return RunDirectory.open(base)
    config = run.config()
    name = f"softmax-seed{config.seed}"
    for beside in (name, f"{config.data.name.replace(':', '-')}-{name}"):
        found = RunDirectory(run.path.parent / beside)
        if found.finished and found.config().data == config.data:
            return found
    return None


@torch.no_grad()
def _retained(
    classifier: Classifier, inputs: Inputs, target: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return (N, K) retain probabilities, and those of the posterior where the head has one."""
    head = classifier.head
    features = classifier.features_of(inputs).to(head.classifier.weight.device)
    prior, posterior = [], []
    for batch, label in zip(
        torch.split(features, EVALUATION_BATCH), torch.split(target, EVALUATION_BATCH), strict=True
    ):
        if isinstance(head, DropMax):
            posterior.append(head.posterior_prob(batch, label))
        if isinstance(head, DropMax | DeterministicAttention):
            prior.append(head.retain_prob(batch))
    return torch.cat(prior), torch.cat(posterior) if posterior else None


def easy_and_hard(log_prob: Tensor, target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the indices of at most ``count`` easy and hard inputs, each ordered by class.

    Easy are those of the most probable labels, one per class; hard those of the least, two per
    class at most, those that are predicted wrong first. Of (N, K) log-probabilities and (N,)
    labels.
    """
    truth = log_prob.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    wrong = log_prob.argmax(dim=-1) != target
    easy = _first_per_class(truth.argsort(descending=True), target, 1, count)
    hardest = truth.argsort()
    hardest = torch.cat([hardest[wrong[hardest]], hardest[~wrong[hardest]]])
    return easy, _first_per_class(hardest, target, MOST_PER_CLASS, count)


def _first_per_class(order: Tensor, target: Tensor, most: int, count: int) -> Tensor:
    taken: dict[int, int] = {}
    chosen = []
    for index in order.tolist():
        label = int(target[index])
        if taken.get(label, 0) < most:
            taken[label] = taken.get(label, 0) + 1
            chosen.append(index)
        if len(chosen) == count:
            break
    return torch.tensor(sorted(chosen, key=lambda index: int(target[index])))
