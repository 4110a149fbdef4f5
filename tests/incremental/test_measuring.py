"""What a learner predicts on a test set, counted by hand."""

import pytest
import torch
from torch import nn

from lastlayer.data import Split
from lastlayer.evaluation import TaskMatrix
from lastlayer.heads import Classifier, Softmax
from lastlayer.incremental import IncrementalConfig, RehearsalMemory
from lastlayer.incremental.run import confusions, incremental_summary
from lastlayer.incremental.state import LearnerState

WIDTH, SEEN, ALL = 4, 3, 5


def state(kept=SEEN, **changes):
    """A learner of three classes in two tasks, with exemplars of the first ``kept`` of them."""
    torch.manual_seed(0)
    classifier = Classifier(nn.Linear(WIDTH, WIDTH), Softmax(WIDTH, SEEN))
    memory = RehearsalMemory(per_class=3, selection="random")
    if kept:
        memory.update(torch.randn(4 * kept, WIDTH), torch.arange(4 * kept) % kept)
    config = IncrementalConfig().updated(changes)
    return LearnerState(
        config, memory, classifier=classifier, sizes=[2, 1], blank=torch.empty(0, WIDTH)
    )


def measured_on():
    generator = torch.Generator().manual_seed(1)
    return Split(torch.randn(70, WIDTH, generator=generator), torch.arange(70) % ALL)


def counted(predicted, target):
    """Count pairs one by one."""
    table = [[0] * SEEN for _ in range(SEEN)]
    for guess, true in zip(predicted, target, strict=True):
        table[true][guess] += 1
    return table


def seen_part():
    data = measured_on()
    rows = [i for i, label in enumerate(data.target.tolist()) if label < SEEN]
    return data.inputs[rows], data.target[rows].tolist()


def test_the_classifiers_confusions_are_counts_among_the_classes_seen():
    made = state()
    inputs, target = seen_part()
    logits = made.trained.head.classifier(made.trained.backbone(inputs))
    found = confusions(made, measured_on())["classifier"]
    assert found == counted(logits.argmax(-1).tolist(), target)
    assert sum(map(sum, found)) == 42
    assert all(type(count) is int for row in found for count in row)


def test_the_nearest_means_confusions_are_counts_among_the_classes_seen():
    made = state()
    inputs, target = seen_part()

    def directions(x):
        features = made.trained.backbone(x).detach().double()
        return features / features.norm(dim=-1, keepdim=True)

    kept = directions(made.memory.inputs)
    means = torch.stack([kept[made.memory.target == k].mean(0) for k in range(SEEN)])
    means = means / means.norm(dim=-1, keepdim=True)
    predicted = [int((row - means).norm(dim=-1).argmin()) for row in directions(inputs)]
    assert confusions(made, measured_on())["nearest-mean"] == counted(predicted, target)


@pytest.mark.parametrize("kept", [0, 2])
def test_without_exemplars_of_every_class_there_is_no_nearest_mean(kept):
    found = confusions(state(kept), measured_on())
    assert found["nearest-mean"] is None
    assert found["classifier"] == confusions(state(), measured_on())["classifier"]


@pytest.mark.parametrize(("kept", "held"), [(0, 0), (2, 2)])
def test_the_missing_exemplars_are_counted_in_the_error(kept, held):
    made = state(kept)
    with pytest.raises(ValueError, match=rf"holds some of {held} of the 3 classes"):
        made.log_prob(torch.zeros(2, WIDTH), "nearest-mean")


def test_an_unknown_predictor_is_refused():
    with pytest.raises(ValueError, match="predictor must be one of 'classifier', 'nearest-mean'"):
        state().log_prob(torch.zeros(2, WIDTH), "nearest")


def test_a_correction_changes_the_predictions_by_its_scales_and_biases():
    made = state(correction={"kind": "bias-correction"})
    for size in made.sizes:
        made.correction.add_task(size)
    made.correction.scale[-1], made.correction.bias[-1] = 0.5, 3.0
    inputs, target = seen_part()
    logits = made.trained.head.classifier(made.trained.backbone(inputs)).detach()
    logits[:, 2] = 0.5 * logits[:, 2] + 3.0
    assert confusions(made, measured_on())["classifier"] == counted(
        logits.argmax(-1).tolist(), target
    )
    features = made.trained.features_of(inputs)
    torch.testing.assert_close(made.log_prob(features), logits.log_softmax(-1))


def test_measuring_changes_nothing():
    made = state()
    before = {name: value.clone() for name, value in made.trained.state_dict().items()}
    drawn = torch.random.get_rng_state()
    confusions(made, measured_on())
    assert torch.equal(drawn, torch.random.get_rng_state())
    after = made.trained.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def result(tables, nearest):
    return {
        "num_new": 1,
        "alpha": 1.0,
        "alignment": None,
        "confusions": {"classifier": tables, "nearest-mean": nearest},
    }


def test_a_summary_has_measures_of_every_predictor_that_there_always_was():
    first, second = [[4]], [[3, 1], [2, 2]]
    results = [result(first, first), result(second, None)]
    entry = incremental_summary(results, [7, 2], ["seven", "two"], "classifier")
    assert entry["sizes"] == [1, 1]
    assert entry["class_order"] == [7, 2]
    assert entry["class_names"] == ["seven", "two"]
    assert entry["nearest-mean"] is None
    measures = entry["classifier"]["measures"]
    assert entry["classifier"]["confusions"] == [first, second]
    assert measures["final_accuracy"] == pytest.approx(5 / 8)
    assert measures["average_incremental_accuracy"] == pytest.approx((1 + 5 / 8) / 2)
    assert measures["forgetting"] == pytest.approx(1 - 3 / 4)
    assert measures == TaskMatrix.from_confusions([first, second], [1, 1]).as_dict()
