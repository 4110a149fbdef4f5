"""Why DropMax loses with many classes: rivals that survive a step, and which gradient goes where.

Run ``python studies/many_classes.py --data-dir D``, with ``--recipe cifar100-5k`` for images. On
the first K classes of a recipe's data, for growing K, it trains every head on the recipe's network
and looks after every epoch, on 512 training rows, at the expected number of rivals that a step's
mask retains, at the chance that none is left, and at the size of every term's gradient by the
features and by the class weights. It writes a table, a figure and the numbers behind both.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from lastlayer.data import Split, Splits
from lastlayer.evaluation import evaluate
from lastlayer.experiments import Recipe
from lastlayer.functional import dropmax as dm
from lastlayer.heads import Classifier, DropMax, HeadOutput
from lastlayer.training import RunConfig
from lastlayer.training.build import build_classifier, load_splits
from lastlayer.training.measuring import predict
from lastlayer.training.term_gradients import term_gradients

RESULTS = Path(__file__).resolve().parents[1] / "results" / "many-classes"
LOOKED_AT = 512


def first_classes(splits: Splits, num_classes: int) -> Splits:
    """Keep the examples of the first classes."""

    def keep(part: Split) -> Split:
        rows = part.target < num_classes
        return replace(part, inputs=part.inputs[rows], target=part.target[rows])

    return replace(
        splits,
        train=keep(splits.train),
        validation=None,
        test=keep(splits.test),
        class_names=splits.class_names[:num_classes],
    )


def look(classifier: Classifier, inputs: Tensor, target: Tensor) -> dict[str, Any]:
    """Measure one head at one moment."""
    head = classifier.head
    with torch.no_grad():
        features = classifier.features(inputs)
    generator = torch.Generator().manual_seed(0)
    gradients = term_gradients(head, features, target, generator=generator)
    found: dict[str, Any] = {"gradients": {k: v._asdict() for k, v in gradients.items()}}
    if isinstance(head, DropMax):
        with torch.no_grad():
            rivals = dm.surviving_rivals(head.posterior_prob(features, target), target)
        found["rivals"] = float(rivals.expected.mean())
        found["no_rival"] = float(rivals.none.mean())
    return found


def study(splits: Splits, config: RunConfig, epochs: int) -> Any:
    """Train one head and return what was seen after every epoch, and the test figures."""
    torch.manual_seed(config.seed)
    classifier = build_classifier(config, splits.input_shape, splits.num_classes)
    inputs, target = splits.train.inputs, splits.train.target
    batch, rate = config.training.batch_size, config.optimizer.lr
    steps = epochs * (len(target) // batch)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    seen = []
    for _ in range(epochs):
        classifier.train()
        for rows in torch.randperm(len(target)).split(batch)[: len(target) // batch]:
            out = classifier(inputs[rows], target=target[rows])
            if not isinstance(out, HeadOutput):
                raise TypeError("a head in training returns its loss")
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            schedule.step()
        seen.append(look(classifier, inputs[:LOOKED_AT], target[:LOOKED_AT]))
    log_prob, _ = predict(classifier, splits.test.inputs)
    measures = evaluate(log_prob, splits.test.target)
    return {"epochs": seen, "error": measures.error, "nll": measures.nll}


def other_terms(seen: dict[str, Any]) -> float:
    """Return the trunk's gradient from all terms but the likelihood."""
    terms = seen["gradients"].items()
    return float(sum(sizes["features"] for name, sizes in terms if name not in ("nll", "loss")))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return one row per head and number of classes, as of the last epoch."""
    lines = [
        "| head | K | rivals a step | no rival % | error % | NLL | class weights, nll | "
        "trunk, nll | trunk, other terms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for head, by_classes in results.items():
        for num_classes, found in by_classes.items():
            last = found["epochs"][-1]
            terms = last["gradients"]
            others = other_terms(last)
            rivals = f"{last['rivals']:.2f}" if "rivals" in last else "–"
            none = f"{100 * last['no_rival']:.0f}" if "rivals" in last else "–"
            lines.append(
                f"| {head} | {num_classes} | {rivals} | {none} | {100 * found['error']:.1f} | "
                f"{found['nll']:.2f} | {terms['nll']['classifier']:.4f} | "
                f"{terms['nll']['features']:.3f} | {others:.3f} |"
            )
    return "\n".join(lines) + "\n"


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw rivals, and the trunk's gradient from likelihood and from the other terms, against K."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
    for head, by_classes in results.items():
        sizes = [int(k) for k in by_classes]
        last = [found["epochs"][-1] for found in by_classes.values()]
        if "rivals" in last[0]:
            axes[0].plot(sizes, [x["rivals"] for x in last], "o-", label=head)
        nll = [x["gradients"]["nll"]["features"] for x in last]
        axes[1].plot(sizes, nll, "o-", label=head)
        others = [other_terms(x) for x in last]
        if max(others) > 0:
            axes[2].plot(sizes, others, "o-", label=head)
    titles = ("rivals retained a step", "trunk gradient: likelihood", "trunk gradient: other terms")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="number of classes K", yscale="log")
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--recipe", default="banking77")
    parser.add_argument(
        "--heads", default="softmax,dropmax,dropmax-prior,dropmax-mixed,softmax-soft-auxiliary"
    )
    parser.add_argument("--classes", default="10,20,40,77")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe.load(arguments.recipe)
    given = {"seed": arguments.seed, "data": {"data_dir": str(arguments.data_dir)}}
    everything = load_splits(recipe.run_config("softmax", given))
    results: dict[str, dict[str, Any]] = {}
    for head in arguments.heads.split(","):
        config = recipe.run_config(head, given)
        for num_classes in map(int, arguments.classes.split(",")):
            found = study(first_classes(everything, num_classes), config, arguments.epochs)
            results.setdefault(head, {})[str(num_classes)] = found
            print(f"{head}, {num_classes} classes: error {100 * found['error']:.1f} %", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    command = ["python", *(word for word in sys.argv if word != str(arguments.data_dir))]
    document = {"command": command, "torch": torch.__version__, "results": results}
    (RESULTS / f"{arguments.recipe}.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / f"{arguments.recipe}.md").write_text(table(results))
    draw(results, RESULTS / f"{arguments.recipe}.svg")
    print(table(results))


if __name__ == "__main__":
    main()
