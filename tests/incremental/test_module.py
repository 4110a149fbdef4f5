"""The loss of a task's step against torch by hand; what the teacher and alpha touch."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lastlayer.data import Split
from lastlayer.heads import BalancedSoftmax, Classifier, Softmax, set_class_counts
from lastlayer.incremental import IncrementalConfig, MetaOldWeight
from lastlayer.incremental.module import TaskModule
from lastlayer.training.engine import fit_module
from lastlayer.training.run_directory import RunDirectory

OLD, NEW, WIDTH, INPUTS = 3, 2, 5, 6
COUNTS = torch.tensor([2.0, 4.0, 3.0, 30.0, 20.0], dtype=torch.float64)


def network(num_classes=OLD + NEW, *, seed=0, counts=None, normalized=False, dropout=0.0):
    """A small classifier in float64."""
    torch.manual_seed(seed)
    layers = [nn.Linear(INPUTS, WIDTH)]
    layers += [nn.BatchNorm1d(WIDTH)] if normalized else []
    layers += [nn.Tanh(), nn.Dropout(dropout)]
    if counts is None:
        head = Softmax(WIDTH, num_classes)
    else:
        head = BalancedSoftmax(WIDTH, num_classes, class_counts=counts)
    return Classifier(nn.Sequential(*layers), head).double()


def config(**changes):
    plain = {
        "training": {"steps": 3, "batch_size": 40, "precision": "64-true", "device": "cpu"},
        "optimizer": {"name": "sgd", "lr": 0.1, "schedule": "constant"},
    }
    return IncrementalConfig().updated(plain).updated(changes)


def batch(size=40, num_classes=OLD + NEW, seed=3):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, INPUTS, generator=generator, dtype=torch.float64)
    return inputs, torch.arange(size) % num_classes


def weight_of(classifier):
    return classifier.head.classifier.weight


def balanced(logits, target, counts=COUNTS):
    return F.cross_entropy(logits + counts.log(), target)


def softened(student, teacher, temperature):
    divergence = F.kl_div(
        (student / temperature).log_softmax(-1),
        (teacher / temperature).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


FACTORS = {"old-share": OLD / (OLD + NEW), "root-ratio": math.sqrt(OLD / NEW), "constant": 1.0}


# -- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", FACTORS)
@pytest.mark.parametrize("kind", ["logits", "features"])
def test_the_loss_and_its_gradient_are_those_by_hand(kind, scale):
    classifier = network(counts=COUNTS, seed=1)
    teacher = network(OLD, seed=2)
    twin, old = copy.deepcopy(classifier), copy.deepcopy(teacher).eval()
    wanted = {"kind": kind, "scale": scale, "weight": 1.7, "temperature": 3.0}
    module = TaskModule(classifier, config(distillation=wanted), num_old=OLD, teacher=teacher)
    inputs, target = batch()
    out = module.output(inputs, target)
    out.loss.backward()

    features, taught = twin.backbone(inputs), old.backbone(inputs).detach()
    logits, teacher_logits = twin.head.classifier(features), old.head.classifier(taught).detach()
    if kind == "logits":
        term = softened(logits[:, :OLD], teacher_logits, 3.0)
    else:
        term = (1 - F.cosine_similarity(features, taught, dim=-1)).mean()
    term = 1.7 * FACTORS[scale] * term
    loss = balanced(logits, target) + term
    loss.backward()

    torch.testing.assert_close(out.loss, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.terms["distillation"], term, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(classifier.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-13)


def test_without_a_teacher_the_loss_is_the_heads_own():
    classifier = network(counts=COUNTS)
    inputs, target = batch()
    out = TaskModule(classifier, config(), num_old=0).output(inputs, target)
    logits = classifier.head.classifier(classifier.backbone(inputs))
    torch.testing.assert_close(out.loss, balanced(logits, target))
    assert set(out.terms) == {"nll"}


def test_distillation_is_of_raw_logits_whatever_the_class_counts():
    classifier = network(counts=COUNTS, seed=1)
    wanted = {"kind": "logits"}
    teacher = network(OLD, counts=COUNTS[:OLD], seed=2)
    module = TaskModule(classifier, config(distillation=wanted), num_old=OLD, teacher=teacher)
    inputs, target = batch()
    before = module.output(inputs, target)
    set_class_counts(classifier.head, [1e-6, 1000.0, 3.0, 1.0, 1.0])
    set_class_counts(teacher.head, [500.0, 1.0, 1e-3])
    after = module.output(inputs, target)
    assert torch.equal(before.terms["distillation"], after.terms["distillation"])
    assert not torch.equal(before.terms["nll"], after.terms["nll"])


def test_a_student_that_is_its_teacher_has_no_distillation_loss():
    classifier = network(OLD, counts=COUNTS[:OLD], seed=1)
    for kind in ("logits", "features"):
        wanted = config(distillation={"kind": kind, "weight": 5.0})
        teacher = copy.deepcopy(classifier)
        module = TaskModule(classifier, wanted, num_old=OLD, teacher=teacher)
        inputs, target = batch(num_classes=OLD)
        term = module.output(inputs, target).terms["distillation"].detach()
        assert float(term.abs()) < 1e-12


def test_alpha_and_the_examples_it_is_learned_on_come_together():
    classifier = network(counts=COUNTS)
    data = Split(torch.zeros(5, INPUTS), torch.arange(5))
    for given in ({"alpha": MetaOldWeight()}, {"meta_data": (data, COUNTS)}):
        with pytest.raises(ValueError, match="alpha needs the meta_data"):
            TaskModule(classifier, config(), num_old=OLD, **given)


# -- the teacher ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A module after three steps, its teacher and what that was before."""
    classifier = network(counts=COUNTS, seed=1, normalized=True, dropout=0.5)
    teacher = network(OLD, seed=2, normalized=True, dropout=0.5)
    before = copy.deepcopy(teacher.state_dict())
    wanted = config(distillation={"kind": "logits"}, training={"checkpoint_every": 1})
    module = TaskModule(classifier, wanted, num_old=OLD, teacher=teacher)
    run = RunDirectory(tmp_path_factory.mktemp("taught"))
    run.checkpoints.mkdir()
    inputs, target = batch()
    fit_module(module, wanted, Split(inputs.float(), target), run=run, checkpoint="task")
    return module, teacher, before, run


def test_the_teacher_stays_bit_for_bit_and_without_noise(taught):
    _, teacher, before, _ = taught
    after = teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(part.training for part in teacher.modules())


def test_the_teacher_gets_no_gradient_and_is_not_trained(taught):
    module, teacher, _, _ = taught
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    own = {id(p) for p in teacher.parameters()}
    assert not own & {id(p) for p in module.parameters()}
    assert all(p.requires_grad for p in module.classifier.parameters())


def test_the_teacher_is_in_no_state_and_no_checkpoint(taught):
    module, _, _, run = taught
    expected = {f"classifier.{name}" for name in module.classifier.state_dict()}
    assert set(module.state_dict()) == expected
    saved = torch.load(run.checkpoints / "task.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == expected
    indices = [i for group in saved["optimizer_states"][0]["param_groups"] for i in group["params"]]
    assert len(indices) == len(list(module.classifier.parameters()))


# -- alpha ----------------------------------------------------------------------------------------


class Watched(MetaOldWeight):
    """Notes what its steps are given, and what the backbone is like then."""

    def meta_step(self, *given, **options):
        self.given, self.options = given, options
        self.backbone = copy.deepcopy(self.watched.backbone)
        self.weight = given[0].detach().clone()
        return super().meta_step(*given, **options)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A module after one step in which alpha moved, on one batch of all its examples."""
    classifier = network(counts=COUNTS, seed=1, normalized=True)
    start = copy.deepcopy(classifier)
    old = {"learn_alpha": True, "lr": 0.05, "batch_size": 500}
    wanted = config(old_classes=old, training={"steps": 1, "batch_size": 59})
    target = torch.arange(5).repeat_interleave(COUNTS.long())
    inputs, _ = batch(len(target))
    data = Split((inputs + target.unsqueeze(1)).float(), target)
    alpha = Watched(lr=0.05)
    alpha.watched = classifier
    module = TaskModule(
        classifier, wanted, num_old=OLD, alpha=alpha, meta_data=(data, COUNTS.long())
    )
    run = RunDirectory(tmp_path_factory.mktemp("learned"))
    run.checkpoints.mkdir()
    fit_module(module, wanted, data, run=run)
    return module, alpha, data, start


def test_alpha_is_learned_on_the_batch_with_the_weights_before_the_step(learned):
    _, alpha, data, start = learned
    _, bias, features, target, counts, num_old, _, _ = alpha.given
    assert torch.equal(alpha.weight, start.head.classifier.weight)
    assert bias is not None
    assert counts.tolist() == COUNTS.tolist()
    assert num_old == OLD
    assert alpha.options == {"lr": 0.1}
    assert sorted(target.tolist()) == sorted(data.target.tolist())
    # The batch is all examples in some order: with it the features that training computes.
    expected = start.train().backbone(data.inputs.double())
    order = (features[:, None] - expected[None]).abs().amax(-1).argmin(dim=1)
    torch.testing.assert_close(features, expected[order], rtol=1e-10, atol=1e-10)
    assert torch.equal(data.target[order], target)


def test_the_meta_batch_is_class_balanced_and_has_features_without_noise(learned):
    _, alpha, data, _ = learned
    meta_features, meta_target = alpha.given[6:]
    found = torch.bincount(meta_target, minlength=5).double()
    assert len(meta_target) == 500
    # Every class with probability 1/5, though one has 2 examples of 59 and another 30.
    assert float(((found - 100) / math.sqrt(500 * 0.2 * 0.8)).abs().max()) < 5
    with torch.no_grad():
        features = alpha.backbone.eval()(data.inputs.double())
    distance = (meta_features[:, None] - features[None]).abs().amax(-1)
    nearest = distance.argmin(dim=1)
    assert float(distance.amin(dim=1).max()) < 1e-12
    assert torch.equal(data.target[nearest], meta_target)
    assert not meta_features.requires_grad


def test_the_meta_batch_leaves_the_statistics_of_batch_norm(learned):
    module, _, data, start = learned
    with torch.no_grad():
        rows = start.backbone[0](data.inputs.double())
    norm = module.classifier.backbone[1]
    torch.testing.assert_close(norm.running_mean, 0.1 * rows.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0))
    assert int(norm.num_batches_tracked) == 1


def test_the_head_is_told_the_moved_alpha_in_the_same_step(learned):
    module, alpha, data, start = learned
    # Adam's first step is one learning rate, less a little for a small gradient.
    assert abs(math.log(alpha.alpha)) == pytest.approx(0.05, rel=1e-3)
    told = torch.cat([alpha.alpha * COUNTS[:OLD], COUNTS[OLD:]])
    torch.testing.assert_close(module.classifier.head.class_counts.double(), told)
    # The weights moved by plain gradient descent on the loss with these counts.
    twin = start.train()
    logits = twin.head.classifier(twin.backbone(data.inputs.double()))
    (gradient,) = torch.autograd.grad(balanced(logits, data.target, told), [weight_of(twin)])
    expected = weight_of(twin) - 0.1 * gradient
    torch.testing.assert_close(weight_of(module.classifier), expected, rtol=1e-6, atol=1e-8)


def test_alpha_is_no_parameter_of_the_classifiers_optimizer(learned):
    module, alpha, _, _ = learned
    optimizer = module.optimizers().optimizer
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in module.classifier.parameters()}
    assert "alpha.log_alpha" in module.state_dict()  # and yet a checkpoint has it
    assert id(alpha.log_alpha) not in held
