"""Object filtering: windows against slices, unions against loops, thresholds, removal rates."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lastlayer
from lastlayer.data.canvases import read_digits
from lastlayer.data.collages import digit_collages
from lastlayer.information import (
    cell_pmi,
    erase,
    filter_object,
    posterior_threshold,
    removal_rates,
    window_pmi,
)
from lastlayer.models import GapCNN


def classifier(inputs=6, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes)).double()


def images(n=2, h=5, w=7, seed=0):
    return torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_windows_are_read_as_images_of_their_own(stride):
    model, batch = classifier(), images()
    found = window_pmi(model, batch, 1, (2, 3), stride=stride, batch_size=4)
    for index, row, column in itertools.product(*map(range, found.shape)):
        top, left = row * stride, column * stride
        window = batch[index : index + 1, :, top : top + 2, left : left + 3]
        expected = model(window).softmax(1)[0, 1].log() + math.log(3)
        torch.testing.assert_close(found[index, row, column], expected)


def test_pointwise_information_is_bounded_and_averages_to_one_over_the_prior():
    model, batch = classifier(), images()
    log_prior = torch.tensor([0.5, 0.3, 0.2]).double().log()
    pmi = torch.stack([window_pmi(model, batch, t, (2, 3), log_prior=log_prior) for t in range(3)])
    weight = log_prior.exp().view(3, 1, 1, 1)
    torch.testing.assert_close((weight * pmi.exp()).sum(0), torch.ones_like(pmi[0]))
    assert (pmi <= -log_prior.view(3, 1, 1, 1)).all()
    equal = window_pmi(model, batch, 0, (2, 3))
    torch.testing.assert_close(pmi[0] - equal, torch.full_like(equal, -math.log(3 * 0.5)))


def test_a_head_and_a_network_of_the_same_logits_give_the_same():
    torch.manual_seed(0)
    head = lastlayer.heads.Softmax(6, 3)
    model = lastlayer.Classifier(nn.Flatten(), head).train()
    plain = nn.Sequential(nn.Flatten(), head.classifier)
    batch = images().float()
    expected = window_pmi(plain, batch, 2, (2, 3))
    torch.testing.assert_close(window_pmi(model, batch, 2, (2, 3)), expected)
    assert model.training


@pytest.mark.parametrize("stride", [1, 2])
def test_the_union_of_the_marked_windows_is_erased(stride):
    batch = images() + 0.1
    generator = torch.Generator().manual_seed(2)
    rows, columns = (5 - 2) // stride + 1, (7 - 3) // stride + 1
    pmi = torch.randn(2, rows, columns, generator=generator)
    found = erase(batch, pmi, (2, 3), 0.8, stride=stride, background=0.05)
    expected = torch.zeros(2, 5, 7, dtype=torch.bool)
    for index, row, column in itertools.product(range(2), range(rows), range(columns)):
        if pmi[index, row, column] > 0.8:
            expected[
                index, stride * row : stride * row + 2, stride * column : stride * column + 3
            ] = True
    assert torch.equal(found.removed, expected)
    assert expected.any()
    painted = torch.where(expected.unsqueeze(1), torch.tensor(0.05).double(), batch)
    torch.testing.assert_close(found.images, painted)


def test_an_infinite_threshold_removes_nothing_and_its_negative_everything():
    batch = images()
    out = filter_object(classifier(), batch, 0, (2, 3), math.inf)
    assert not out.removed.any()
    assert torch.equal(out.images, batch)
    out = filter_object(classifier(), batch, 0, (2, 3), -math.inf)
    assert out.removed.all()
    assert not out.images.any()
    impossible = torch.full((2, 4, 5), -math.inf)  # as of a sparse head
    assert erase(batch, impossible, (2, 3), -math.inf).removed.all()


def test_raising_the_threshold_removes_ever_less():
    pmi = window_pmi(classifier(), images(), 1, (2, 3))
    before = torch.ones(2, 5, 7, dtype=torch.bool)
    for threshold in torch.linspace(-2, 1, 13).tolist():
        removed = erase(images(), pmi, (2, 3), threshold).removed
        assert not (removed & ~before).any()
        before = removed


def test_an_image_of_background_is_left_alone():
    for background in (0.0, 0.7):
        blank = torch.full((2, 1, 5, 7), background, dtype=torch.float64)
        out = filter_object(classifier(), blank, 0, (2, 3), -100.0, background=background)
        assert torch.equal(out.images, blank)
        out = filter_object(
            classifier(), blank, 0, (2, 3), -100.0, background=background, min_ink=0.01
        )
        assert not out.removed.any()


def test_windows_with_little_ink_are_not_marked():
    batch = torch.zeros(1, 1, 4, 8)
    batch[0, 0, :2, :2] = 1.0
    pmi = torch.ones(1, 2, 4)
    removed = erase(batch, pmi, 2, 0.0, stride=2, min_ink=0.5).removed
    assert removed.sum() == 4
    assert removed[0, :2, :2].all()


def test_cells_of_the_map_are_read_as_windows_of_it():
    torch.manual_seed(0)
    model = lastlayer.Classifier(GapCNN((1, 8, 8)), lastlayer.heads.Softmax(64, 4)).eval()
    batch = torch.rand(2, 1, 12, 16)
    found = cell_pmi(model, batch, 3, cells=4)
    assert found.shape == (2, 3, 5)
    features = model.backbone.layers[:-2](batch)
    for row, column in itertools.product(range(3), range(5)):
        mean = features[:, :, row : row + 4, column : column + 4].mean((2, 3))
        expected = model.head.log_prob(mean)[:, 3] + math.log(4)
        torch.testing.assert_close(found[:, row, column], expected)
    erased = erase(batch, found, 8, 0.0, stride=2)
    assert erased.removed.shape == (2, 12, 16)


def test_cells_that_see_nothing_around_them_are_windows():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 5, 2, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    batch = torch.rand(2, 1, 8, 12)
    by_cells = cell_pmi(network, batch, 1, cells=2)
    torch.testing.assert_close(by_cells, window_pmi(network, batch, 1, 4, stride=2))


def test_removal_rates_are_shares_of_ink():
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(3, 2, 6, 9, generator=generator)
    removed = torch.rand(3, 6, 9, generator=generator) > 0.4
    boxes = torch.tensor([[0, 0, 4, 6], [5, 0, 9, 3], [5, 4, 8, 6]]).expand(3, 3, 4)
    labels = torch.tensor([[1, 0, 1], [0, 0, 2], [1, 1, 1]])
    rates = removal_rates(batch, removed, boxes, labels, 1, background=0.2)
    sums = {True: [0.0, 0.0], False: [0.0, 0.0]}
    for index, cell in itertools.product(range(3), range(3)):
        left, top, right, bottom = boxes[index, cell].tolist()
        ink = (batch[index, :, top:bottom, left:right].double() - 0.2).abs().sum(0)
        gone = ink[removed[index, top:bottom, left:right]].sum()
        sums[bool(labels[index, cell] == 1)][0] += float(gone)
        sums[bool(labels[index, cell] == 1)][1] += float(ink.sum())
    assert rates.target == pytest.approx(sums[True][0] / sums[True][1], rel=1e-5)
    assert rates.others == pytest.approx(sums[False][0] / sums[False][1], rel=1e-5)


def test_a_rate_of_no_object_is_nan():
    boxes, labels = torch.tensor([[[0, 0, 2, 2]]]), torch.tensor([[1]])
    rates = removal_rates(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2).bool(), boxes, labels, 0)
    assert math.isnan(rates.target)
    assert rates.others == 1.0


def test_thresholds_are_logs_of_posterior_over_prior():
    assert posterior_threshold(0.9, 0.1) == pytest.approx(math.log(10) + math.log(0.9))
    assert posterior_threshold(0.25, 0.25) == 0.0
    for value in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="posterior must lie in"):
            posterior_threshold(value, 0.1)


def train(digits, target):
    """A small network on single digits, in a few seconds."""
    torch.manual_seed(0)
    model = nn.Sequential(GapCNN((1, 8, 8), channels=(12, 16, 24, 32)), nn.Linear(32, 10))
    steps = 300
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        rows = torch.randint(len(target), (64,))
        loss = F.cross_entropy(model(digits[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def test_zeros_are_removed_from_digit_collages_and_the_rest_is_left():
    raw = read_digits()
    model = train(raw.train.inputs, raw.train.target)
    collages = digit_collages(raw.test.inputs, raw.test.target, 15)
    threshold = posterior_threshold(0.9, prior=0.1)
    out = filter_object(model, collages.images, 0, 8, threshold, min_ink=0.15)
    rates = removal_rates(collages.images, out.removed, collages.boxes, collages.labels, 0)
    assert rates.target >= 0.95
    assert rates.others <= 0.05
    aligned = window_pmi(model, collages.images[:, :, 4:, 4:], 0, 8, stride=12)
    assert aligned.shape == (15, 3, 4)
    zeros = collages.labels.view(15, 3, 4) == 0
    assert (aligned[zeros] > 0).double().mean() > 0.95
    assert (aligned[~zeros] > 0).double().mean() < 0.02
    assert aligned[zeros].median() > 0.99 * math.log(10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: window_pmi(classifier(), images(), 3, (2, 3)), r"target must lie in \[0, 2\]"),
        (lambda: window_pmi(classifier(), images(), 0, 6), "window must lie within .* got 6"),
        (lambda: window_pmi(classifier(), images(), 0, (0, 3)), "window must lie within"),
        (lambda: window_pmi(classifier(), images()[0], 0, 2), r"images must have shape \(N, C"),
        (lambda: window_pmi(classifier(), images()[:0], 0, 2), "N at least 1"),
        (lambda: window_pmi(classifier(), images(), 0, (2, 3), stride=0), "stride must be"),
        (lambda: window_pmi(classifier(), images() * math.nan, 0, (2, 3)), "must not be NaN"),
        (
            lambda: window_pmi(classifier(), images(), 0, (2, 3), log_prior=torch.zeros(2)),
            r"log_prior must have shape \(3,\)",
        ),
        (
            lambda: window_pmi(
                classifier(), images(), 0, (2, 3), log_prior=torch.tensor([0.0, 0.5, 0.5]).log()
            ),
            "be finite for class 0",
        ),
        (lambda: erase(images(), torch.zeros(2, 4, 4), (2, 3), 0.0), r"shape \(2, 4, 5\)"),
        (lambda: erase(images(), torch.zeros(2, 4, 5), (2, 3), math.nan), "must not be NaN"),
        (lambda: erase(images(), torch.zeros(2, 4, 5), (2, 3), 0.0, min_ink=-1.0), "min_ink"),
        (
            lambda: removal_rates(
                images(), torch.zeros(2, 5, 5).bool(), torch.zeros(2, 1, 4), torch.zeros(2, 1), 0
            ),
            r"removed must have shape \(2, 5, 7\)",
        ),
        (
            lambda: cell_pmi(
                nn.Sequential(nn.AvgPool2d((5, 7)), nn.Flatten(), nn.Linear(1, 2)).double(),
                images(),
                0,
                cells=6,
            ),
            r"cells must be at most the map's \(5, 7\)",
        ),
        (lambda: cell_pmi(classifier(35), images(), 0), "as all its cells, flattened"),
    ],
)
def test_what_cannot_be_filtered_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
