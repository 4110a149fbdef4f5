"""What an attached head keeps of a trained softmax network's predictions, and how it goes on."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.data import load
from lastlayer.heads import HEADS, Classifier, Head, attach
from lastlayer.heads.catalog import takes_class_counts

COUNTS = [10 * (k + 1) for k in range(10)]
CHANGE = {"sparsemax", "entmax15", "ldam", "ldam-drw", "logit-adjusted"}
# Those of CHANGE that still find the same class most probable.
SAME_ORDER = {"sparsemax", "entmax15"}
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
BRANCHED = ["dropmax", "dropmax-prior", "dropmax-iclr", "dropmax-exact", "dropmax-mixed"]
BRANCHED += ["attention", "softmax-auxiliary", "softmax-soft-auxiliary"]


class Digits:
    """A network trained with softmax on the digits, and those that it has not seen."""

    def __init__(self) -> None:
        splits = load("digits", train_size=800, validation_size=100, seed=0)
        self.train, self.test = splits.train, splits.test
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        optimizer = torch.optim.Adam(self.network.parameters(), 1e-2)
        for _ in range(100):
            optimizer.zero_grad()
            F.cross_entropy(self.network(self.train.inputs), self.train.target).backward()
            optimizer.step()
        self.network.eval().requires_grad_(True)
        with torch.no_grad():
            self.before = self.network(self.test.inputs).log_softmax(-1)

    def attached(self, name: str, **options: object) -> Classifier:
        if takes_class_counts(name):
            options = {"class_counts": COUNTS} | options
        return attach(copy.deepcopy(self.network), name, layer="3", **options).eval()


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def kept(head: Head, found: Tensor, before: Tensor) -> bool:
    """Return whether two predictions agree up to rounding: log p where p is not tiny, and p."""
    likely = before > -20
    by_log = torch.allclose(found[likely], before[likely], rtol=1e-5, atol=1e-5)
    return by_log and torch.allclose(found.exp(), before.exp(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_softmax_network_predicts_as_before_where_the_head_says_so(
    name: str, digits: Digits
) -> None:
    model = digits.attached(name)
    found = model(digits.test.inputs).detach()
    assert model.head.keeps_softmax == (name not in CHANGE)
    assert kept(model.head, found, digits.before) == (name not in CHANGE)
    if name not in CHANGE or name in SAME_ORDER:
        assert torch.equal(found.argmax(-1), digits.before.argmax(-1))


OPTIONS = [
    ("dropmax", {"prediction": "exact"}, False),
    ("dropmax", {"prediction": "monte-carlo", "prediction_samples": 5}, False),
    ("dropmax", {"eps": 0.1}, True),  # (rho + eps) cancels as well
    ("dropmax", {"bias": False}, None),
    ("dropmax", {"posterior": "prior"}, True),
    ("dropmax-iclr", {"eps": 0.1}, False),
    ("dropmax-mixed", {"prediction": "exact"}, False),
    ("dropmax-mixed", {"prediction": "exact", "share": 0.0}, True),
    ("dropmax-mixed", {"share": 1.0}, True),
    ("attention", {"regularized": True, "eps": 0.1}, True),
    ("class-dropout", {"prediction": "monte-carlo"}, False),
    ("class-dropout", {"prediction": "monte-carlo", "retain_prob": 1.0}, True),
    ("entmax15", {"alpha": 1.0}, True),
    ("logit-adjusted", {"tau": 0.0}, True),
    ("logit-adjusted", {"class_counts": [7] * 10}, True),
    ("balanced-softmax", {"class_counts": [0, *COUNTS[1:]], "zero_counts": "mask"}, False),
    ("balanced-softmax", {"zero_counts": "mask"}, True),
]


@pytest.mark.parametrize(("name", "options", "keeps"), OPTIONS)
def test_options_that_change_predictions_are_told_apart(
    name: str, options: dict[str, object], keeps: bool | None, digits: Digits
) -> None:
    torch.manual_seed(0)
    if keeps is None:  # a network without biases to begin with
        network = copy.deepcopy(digits.network)
        network[3].bias = None
        before = network(digits.test.inputs).log_softmax(-1)
        model, keeps = attach(network, name, layer="3").eval(), True
        assert model.head.retain.bias is None
    else:
        model, before = digits.attached(name, **options), digits.before
    assert model.head.keeps_softmax == keeps
    assert kept(model.head, model(digits.test.inputs), before) == keeps


@pytest.mark.parametrize("prediction", ["exact", "monte-carlo"])
def test_averaged_over_masks_the_order_of_the_classes_stays(
    prediction: str, digits: Digits
) -> None:
    model = digits.attached("dropmax", prediction=prediction, prediction_samples=4000)
    inputs = digits.test.inputs[:50]
    torch.manual_seed(0)
    found, before = model(inputs), digits.before[:50]
    assert torch.equal(found.argmax(-1), before.argmax(-1))
    if prediction == "exact":  # all masks are alike in law: E[p_k] rises with the logit
        assert torch.equal(found.argsort(-1), before.argsort(-1))


def test_a_prior_head_gives_back_the_softmax_for_the_training_prior(digits: Digits) -> None:
    model = digits.attached("logit-adjusted")
    features = model.features(digits.test.inputs)
    found = model.head.log_prob(features, prior=model.head.class_counts)
    torch.testing.assert_close(found, digits.before, rtol=1e-5, atol=1e-5)


def test_a_head_of_its_own_making_promises_nothing() -> None:
    class Own(Head):
        def _log_prob(self, features: Tensor) -> Tensor:
            return features

        def _row_terms(self, *args: object) -> dict[str, Tensor]:
            return {}

    assert not Own(2, 2).keeps_softmax


@pytest.mark.parametrize("name", ["dropmax", "dropmax-mixed", "attention", "softmax-auxiliary"])
def test_only_an_attached_head_of_the_same_classes_starts_its_branches_at_zero(name: str) -> None:
    network = nn.Linear(6, 4)
    retain = attach(copy.deepcopy(network), name).head.retain
    assert not retain.weight.any()
    assert not retain.bias.any()
    assert attach(network, name, num_classes=5).head.retain.weight.all()
    assert HEADS.get(name)(6, 4).retain.weight.all()


@pytest.mark.parametrize("name", BRANCHED)
def test_every_branch_has_a_gradient_from_the_first_step_on(name: str, digits: Digits) -> None:
    torch.manual_seed(0)
    model = digits.attached(name).train()
    model(digits.train.inputs[:100], target=digits.train.target[:100]).loss.backward()
    assert model.head.branches()
    for branch in model.head.branches().values():
        rows = branch.weight.grad.norm(dim=-1)
        assert (rows > 0.01 * rows.max()).all()
        assert (branch.bias.grad != 0).all()


def trained(digits: Digits, seed: int, start: str) -> tuple[float, float]:
    """Return DropMax's test error, and by how much more it retains targets than other classes."""
    torch.manual_seed(seed)
    model = digits.attached("dropmax").train()
    if start == "Glorot":
        nn.init.xavier_uniform_(model.head.retain.weight)
    optimizer = torch.optim.Adam(model.param_groups(), 3e-3)
    for _ in range(300):
        rows = torch.randint(len(digits.train.target), (100,))
        optimizer.zero_grad()
        model(digits.train.inputs[rows], target=digits.train.target[rows]).loss.backward()
        optimizer.step()
    with torch.no_grad():
        retained = model.head.retain_prob(model.features(digits.test.inputs))
        wrong = model.eval()(digits.test.inputs).argmax(-1) != digits.test.target
    is_target = F.one_hot(digits.test.target, 10).bool()
    return float(wrong.float().mean()), float(
        retained[is_target].mean() - retained[~is_target].mean()
    )


def test_dropmax_trains_from_zero_as_it_does_from_random_branches(digits: Digits) -> None:
    zero, glorot = (
        torch.tensor([trained(digits, seed, start) for seed in range(3)]).mean(0)
        for start in ("zero", "Glorot")
    )
    # The same test digits, about 5 % of them wrong: one binomial deviation is 1 % of them at most.
    assert abs(float(zero[0] - glorot[0])) < 0.01
    assert float(zero[0]) < 0.08
    assert float(zero[1]) > 0.9 * float(glorot[1]) > 0.1
