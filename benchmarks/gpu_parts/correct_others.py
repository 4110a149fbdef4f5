"""Part ``correct`` beyond the three registries: functions, networks, information, solvers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gpu_parts.bench import Bench, Row
from gpu_parts.places import BRAIN, VARIANTS, Place, Values, compare, relative_error
from lastlayer import functional as LF
from lastlayer.functional import dependence as dp
from lastlayer.functional import dropmax as dm
from lastlayer.functional import transferability as tr
from lastlayer.functional.information import chi_square_information
from lastlayer.heads import DropMax, Softmax, attach, grow, imprint
from lastlayer.information import (
    ESTIMATORS,
    ClassMaps,
    build_estimator,
    class_information,
    estimate_information,
    feature_report,
    h_score,
    stochastic_information,
)
from lastlayer.longtail import ClassDraw, MetaSampler, long_tail_indices
from lastlayer.models import GapCNN
from lastlayer.regularizers import insert, total_penalty

Compute = Callable[[Place], Values]
FLOATS = VARIANTS[:3]  # float64, float32, float32 under autocast


def run(bench: Bench) -> None:
    """Compare what takes tensors on a device, then what draws there, then estimators."""
    variants = FLOATS[1:2] if bench.dry else FLOATS
    for name, compute in FUNCTIONS.items():
        for variant in variants[:2]:
            bench.case(
                f"function {name}, {variant.name}", partial(compare, compute, variant, bench.device)
            )
    for name, compute in NETWORKS.items():
        for variant in variants[:2]:
            bench.case(f"{name}, {variant.name}", partial(compare, compute, variant, bench.device))
    bench.case("attach under autocast", partial(attach_under_autocast, bench.device))
    bench.case("draws follow their distributions", partial(distributions, bench.device))
    bench.case("class draws", partial(class_draws, bench.device))
    bench.case("stochastic information", partial(masks_bracket, bench.device))
    bench.case("information from mixed devices", partial(mixed_devices, bench.device))
    bench.case("growing and imprinting", partial(growing, bench.device))
    names = ESTIMATORS.names()[:2] if bench.dry else ESTIMATORS.names()
    for name in names:
        bench.case(f"neural estimator {name}", partial(neural_estimator, name, bench.device))
    for name in LINEAR:
        bench.case(f"linear {name}", partial(linear_solver, name, bench.device))


def _numbers(place: Place, *shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return place.inputs(scale * torch.randn(*shape, generator=generator, dtype=torch.float64))


def _labels(place: Place, number: int, classes: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return place.inputs(torch.randint(classes, (number,), generator=generator))


def _map(function: Callable[..., Tensor], place: Place, *, classes: int, scale: float) -> Values:
    """A function of logits with its own backward pass, at two sizes of logits."""
    logits = _numbers(place, 48, classes, scale=scale).requires_grad_()
    out = function(logits)
    (gradient,) = torch.autograd.grad((out * _numbers(place, 48, classes, seed=2)).sum(), [logits])
    return Values({"output": out}, {"logits": gradient})


def _expected(form: str, place: Place) -> Values:
    """DropMax's expectation over all masks, for training and for prediction."""
    logits = _numbers(place, 24, 30, scale=2.0).requires_grad_()
    retain = _numbers(place, 24, 30, seed=3, scale=2.0).requires_grad_()
    loss = dm.expected_cross_entropy(logits, retain, _labels(place, 24, 30), form=form, eps=1e-6)
    gradients = torch.autograd.grad(loss.sum(), [logits, retain])
    log_prob = dm.expected_log_prob(logits, retain, form=form, eps=1e-6)
    found = {"loss": loss, "probabilities": log_prob.exp()}
    return Values(found, dict(zip(("logits", "retain"), gradients, strict=True)))


def _objective(place: Place) -> Values:
    """DropMax's terms in one pass."""
    inputs = [_numbers(place, 40, 50, seed=s).requires_grad_() for s in range(3)]
    rows = dm.objective_rows(*inputs, _labels(place, 40, 50), dm.logistic_noise(inputs[0]))
    total = sum(i * part.sum() for i, part in enumerate(rows, start=1))
    gradients = torch.autograd.grad(total, inputs)
    return Values(rows._asdict(), {str(i): g for i, g in enumerate(gradients)})


def _dependence(place: Place) -> Values:
    """H-scores and canonical dependence."""
    features, labels = _numbers(place, 300, 8), _labels(place, 300, 5)
    features = features + 0.5 * labels.unsqueeze(-1).to(features)
    other = _numbers(place, 300, 8, seed=6)
    joint = dp.joint_table(labels, _labels(place, 300, 4, seed=9))
    modes = dp.dependence_modes(joint)
    return Values(
        {
            "h_score": dp.h_score(features, labels),
            "shrunk": dp.shrunk_h_score(features, labels),
            "two-sided": dp.two_sided_h_score(features, other),
            "chi-square": chi_square_information(joint),
            "values": modes.sigma,
        }
    )


def _transfer(place: Place) -> Values:
    """Scores of features for a task."""
    features, labels = _numbers(place, 200, 6), _labels(place, 200, 4)
    prob = _numbers(place, 200, 7, seed=4).softmax(-1)
    return Values(
        {
            "log_me": tr.log_me(features, labels),
            "leep": tr.leep(source_prob=prob, target=labels),
            "nce": tr.nce(source_label=prob.argmax(-1), target=labels),
            "trans_rate": tr.trans_rate(features, labels),
        }
    )


def _information(place: Place) -> Values:
    """Estimates from scores, which are computed on the CPU wherever the scores are."""
    scores, labels = _numbers(place, 500, 6), _labels(place, 500, 6)
    read = [estimate_information(scores, labels, kind=k) for k in ("cross-entropy", "pc-softmax")]
    classes = class_information(scores, labels)
    score = h_score(scores, labels)
    found = torch.tensor([*(x.value for x in read), *(c.mean for c in classes), score.value])
    pmi = LF.pointwise_information(scores, EVEN_PRIOR.to(scores))
    return Values({"estimates": found, "pmi": pmi})


EVEN_PRIOR = torch.full((6,), 1 / 6, dtype=torch.float64)


def _images(place: Place) -> tuple[Tensor, Tensor]:
    return _numbers(place, 64, 1, 12, 12, seed=8), _labels(place, 64, 4)


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(GapCNN((1, 12, 12), channels=(6, 8, 8, 10)), nn.Linear(10, 4)).double()


def _step(model: nn.Module, loss: Tensor) -> dict[str, Tensor | None]:
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return dict(zip(named, gradients, strict=True))


def _attached(head: str, place: Place) -> Values:
    """A convolutional network whose last layer a head took the place of: a step, a prediction."""
    model = place.module(attach(_network(), head))
    images, target = _images(place)
    out = model(images, target=target)
    gradients = _step(model, out.loss)
    return Values({"loss": out.loss, "prob": model.eval()(images).exp()}, gradients)


def _inserted(regularizer: str, options: dict[str, Any], place: Place) -> Values:
    """The network with a regularizer behind its convolutions."""
    network = _network()
    if regularizer in ("variational-dropout", "concrete-dropout"):
        options = options | {"num_examples": 64, "example": torch.zeros(2, 1, 12, 12).double()}
    insert(network, regularizer, where="0.layers.conv[34]", **options)
    model = place.module(attach(network, "softmax", layer="1"))
    images, target = _images(place)
    loss = model(images, target=target).loss + total_penalty(model)
    return Values({"loss": loss}, _step(model, loss))


def _maps(method: str, place: Place) -> Values:
    """Class maps of the network, its H-scores by layer."""
    network = place.module(_network())
    images, target = _images(place)
    out = ClassMaps(network, method=method, window=3)(images, target)
    report = feature_report(network, target, inputs=images, batch_size=24)
    scores = torch.tensor([score.value for score in report.scores.values()])
    return Values({"maps": out.maps, "logits": out.logits, "H-scores": scores})


def _meta(place: Place) -> Values:
    """Two steps of the Meta Sampler: classes drawn, their weights, where the rates went."""
    sampler = MetaSampler([400, 90, 20, 5])
    sampler = place.module(sampler)  # type: ignore[assignment]
    torch.manual_seed(0)
    head = place.module(Softmax(8, 4, dtype=torch.float64))
    losses = []
    for step in range(2):
        classes, weights = sampler.draw(32)
        features = _numbers(place, 32, 8, seed=step) + classes.unsqueeze(-1)
        meta, labels = _numbers(place, 20, 8, seed=9 + step), _labels(place, 20, 4)
        losses.append(sampler.meta_step(head, features, classes, weights, meta, labels, lr=0.1))
    return Values({"loss": torch.stack(losses), "rates": sampler.rates()}, exact={"drawn": classes})


FUNCTIONS: dict[str, Compute] = {
    **{
        f"entmax {alpha}, K = {classes}": partial(
            _map, partial(LF.entmax, alpha=alpha), classes=classes, scale=scale
        )
        for alpha in (1.2, 1.5, 2.0, 3.0)
        for classes, scale in ((7, 1.0), (3000, 3.0))
    },
    "expectation over masks, neurips": partial(_expected, "neurips"),
    "expectation over masks, iclr": partial(_expected, "iclr"),
    "objective in one pass": _objective,
    "dependence": _dependence,
    "transferability": _transfer,
    "information": _information,
}
NETWORKS: dict[str, Compute] = {
    **{f"attach {head}": partial(_attached, head) for head in ("softmax", "dropmax", "sparsemax")},
    "insert dropout": partial(_inserted, "dropout", {"p": 0.3}),
    "insert disout": partial(_inserted, "disout", {"p": 0.2, "block_size": 2, "sampler": "dense"}),
    "insert concrete-dropout": partial(_inserted, "concrete-dropout", {"p": 0.2}),
    **{f"class maps, {kind}": partial(_maps, kind) for kind in ("cam", "infocam", "infocam+")},
    "meta sampler": _meta,
}


def attach_under_autocast(device: str) -> Row:
    """The attached network as it is trained in practice: bf16 autocast around all of it."""
    images, target = _images(Place("cpu", FLOATS[1], False))
    losses = []
    for where, on in ((device, True), ("cpu", False)):
        model = attach(_network().float(), "softmax").to(where)
        with torch.autocast(where, dtype=BRAIN, enabled=on):
            loss = model(images.to(where), target=target.to(where)).loss
        torch.autograd.backward(loss)
        losses.append(loss)
    error = relative_error(losses[1], losses[0])
    return {"status": "ok" if error <= 3e-2 else "wrong", "error": error, "bound": 3e-2}


def distributions(device: str) -> Row:
    """Draws from a generator on the device: rates and moments within five standard errors."""
    own = torch.Generator(device).manual_seed(1)
    target = torch.arange(4000, device=device) % 50
    kept = LF.class_dropout_mask(target, 50, 0.4, generator=own)
    others = kept.sum() - len(target)
    counts = 4000 * 49
    mask, expected = LF.sampled_class_mask(target, 50, 12, generator=own)
    proposal = torch.linspace(1.0, 9.0, 50, device=device)
    learned, log_count = LF.sampled_class_mask(target, 50, 12, proposal=proposal, generator=own)
    logistic = dm.logistic_noise(torch.empty(200_000, device=device), generator=own)
    share, size = float(others) / counts, counts**0.5
    inside = float(learned.float().mean()) * 50 - 1
    problems = {
        "class dropout's share": abs(share - 0.4) > 5 * 0.49 / size,
        "sampled: number of classes": not bool((mask.sum(-1) == 13).all()),
        "sampled-learned: number of classes": not bool((learned.sum(-1) == 13).all()),
        "expected counts": abs(float(expected.exp().mean()) - 12 / 49) > 1e-5,
        "expected counts, learned": relative_error(
            torch.tensor(12.0),
            log_count.exp().scatter(-1, target.unsqueeze(-1), 0.0).sum(-1).mean(),
        )
        > 1e-4,
        "logistic mean": abs(float(logistic.mean())) > 5 * 1.82 / 200_000**0.5,
        "logistic variance": abs(float(logistic.var()) / 3.2899 - 1) > 0.03,
    }
    wrong = [name for name, is_wrong in problems.items() if is_wrong]
    row: Row = {"status": "wrong" if wrong else "ok", "message": "; ".join(wrong)}
    return row | {"class_dropout_share": share, "negatives": inside}


def class_draws(device: str) -> Row:
    """Examples drawn class by class on the device: shares of the classes as asked for.

    A long tail of labels there holds the examples of the same labels on the CPU.
    """
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10, device=device)
    draw = ClassDraw(labels)
    own = torch.Generator(device).manual_seed(2)
    index = draw(30_000, torch.full((3,), 1 / 3), own)
    shares = torch.bincount(labels[index], minlength=3) / len(index)
    off = float((shares - 1 / 3).abs().max())
    on_device = index.device.type == device
    tail = torch.tensor([40, 20, 5])
    thinned = long_tail_indices(labels, tail.to(device))
    same = torch.equal(thinned.cpu(), long_tail_indices(labels.cpu(), tail))
    good = off < 5 * (2 / 9 / 30_000) ** 0.5 and on_device and same
    return {"status": "ok" if good else "wrong", "largest_difference": off}


def masks_bracket(device: str) -> Row:
    """One random mask knows no more than their average, by a generator on the device."""
    torch.manual_seed(0)
    head = DropMax(8, 5, device=device)
    features = torch.randn(200, 8).to(device)
    target = torch.arange(200, device=device) % 5
    own = torch.Generator(device).manual_seed(3)
    found = stochastic_information(head, features, target, 20, own)
    good = found.lower.value <= found.upper.value
    row: Row = {"status": "ok" if good else "wrong"}
    return row | {"lower": found.lower.value, "upper": found.upper.value}


def mixed_devices(device: str) -> Row:
    """Inputs and labels on the CPU beside a network on the device, and the other way round."""
    network = _network().float().to(device)
    images, target = _images(Place("cpu", FLOATS[1], False))
    report = feature_report(network, target.to(device), inputs=images.to(device))
    mixed = feature_report(network, target, inputs=images.to(device))
    far = max(abs(score.value - mixed.scores[name].value) for name, score in report.scores.items())
    scores = network(images.to(device)).detach()
    estimate_information(scores, target)
    return {"status": "ok" if far < 1e-5 else "wrong", "largest_difference": far}


def growing(device: str) -> Row:
    """A head on the device gets new classes, and weights from their features."""
    torch.manual_seed(0)
    for kind in (Softmax, DropMax):
        head = kind(6, 4, device=device)
        old = head.classifier.weight.detach().clone()
        optimizer = torch.optim.Adam(head.parameters())
        head(torch.randn(8, 6, device=device), torch.arange(8, device=device) % 4).loss.backward()
        optimizer.step()
        old = head.classifier.weight.detach().clone()
        grow(head, 3, optimizer=optimizer)
        features = torch.randn(21, 6, device=device)
        labels = torch.arange(21, device=device) % 7
        imprint(head, features, labels, classes=[4, 5, 6])
        loss = head(features, labels).loss
        torch.autograd.backward(loss)
        optimizer.step()
        if head.classifier.weight.device.type != device or head.num_classes != 7:
            return {"status": "wrong", "message": "the grown head is elsewhere"}
    return {"status": "ok", "old_rows": len(old)}


def neural_estimator(name: str, device: str) -> Row:
    """A small network trained where the pairs are, beside the same on the CPU."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (600,), generator=generator)
    x = torch.randn(600, 2, generator=generator) + labels.unsqueeze(-1)
    values = []
    for where in (device, "cpu"):
        estimator = build_estimator(name, epochs=3, batch_size=100, hidden=(16,))
        pairs = x.to(where), labels.to(where)
        values.append(estimator.fit(*pairs).estimate(*pairs).value)
    far = abs(values[0] - values[1])
    return {"status": "ok" if far < 0.02 else "wrong", "difference": far, "value": values[0]}


LINEAR = ("lbfgs", "newton-krylov", "admm", "sgd", "auto")


def linear_solver(name: str, device: str) -> Row:
    """A convex last layer fitted on the device and on the CPU: the same probabilities."""
    from lastlayer import linear_model as lm

    make: dict[str, Callable[[], Any]] = {
        "lbfgs": lambda: lm.LBFGSSoftmax(tol=1e-6),
        "newton-krylov": lambda: lm.NewtonKrylovSoftmax(tol=1e-8),
        "admm": lambda: lm.ADMMSoftmax(tol=1e-4, max_iter=1000),
        "sgd": lambda: lm.SGDSoftmax(tol=0.05, max_iter=50, batch_size=64, random_state=0),
        "auto": lambda: lm.SoftmaxRegression(tol=1e-6),
    }
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (800,), generator=generator)
    x = torch.randn(800, 10, generator=generator, dtype=torch.float64) + 0.3 * labels[:, None]
    errors = {}
    for dtype in (torch.float64, torch.float32):
        fitted = [
            make[name]().fit(x.to(where, dtype), labels.to(where)) for where in (device, "cpu")
        ]
        logits = [model.decision_function(x.to(dtype)) for model in fitted]
        logits = [torch.as_tensor(part).double().cpu().softmax(-1) for part in logits]
        on_device = torch.as_tensor(fitted[0].decision_function(x.to(device, dtype)))
        errors[str(dtype).removeprefix("torch.")] = relative_error(logits[1], logits[0])
        errors["predicting there"] = relative_error(logits[1], on_device.double().softmax(-1))
    bound = 1e-2 if name in ("admm", "sgd") else 1e-3
    good = max(errors.values()) <= bound
    return {"status": "ok" if good else "wrong", "bound": bound, **errors}
