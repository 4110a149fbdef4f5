"""The weak-dependence law of softmax regression: limits, inverses, optima, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lastlayer.functional.dependence import (
    SoftmaxLayer,
    dependence_matrix,
    dependence_modes,
    joint_table,
    weak_excess_loss,
    weak_features,
    weak_hidden_weight,
    weak_softmax,
)


def chi_square_divergence(joint: torch.Tensor) -> torch.Tensor:
    return dependence_matrix(joint).square().sum()


def weak_joint(epsilon: float, seed: int = 0) -> torch.Tensor:
    """(1 - eps) independent + eps random, with unequal marginals."""
    generator = torch.Generator().manual_seed(seed)
    p_x, p_y = (torch.rand(n, generator=generator, dtype=torch.float64) + 0.5 for n in (8, 6))
    independent = torch.outer(p_x / p_x.sum(), p_y / p_y.sum())
    other = torch.rand(8, 6, generator=generator, dtype=torch.float64)
    return (1 - epsilon) * independent + epsilon * other / other.sum()


def excess(joint: torch.Tensor, features: torch.Tensor, layer: SoftmaxLayer) -> torch.Tensor:
    """CE - H(Y | X), exactly."""
    log_q = torch.log_softmax(features @ layer.weight.T + layer.bias, dim=1)
    log_p = (joint / joint.sum(1, keepdim=True)).log()
    return (joint * (log_p - log_q)).sum()


def minimized(loss, *parameters: torch.Tensor) -> None:
    """Minimize by LBFGS in place, far below the effects tested."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(closure)


def gaussian(rows: int, k: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, k, generator=generator, dtype=torch.float64)


def test_information_is_half_the_squared_correlations_to_first_order():
    gaps = []
    for epsilon in (0.02, 0.01, 0.005):
        joint = weak_joint(epsilon)
        independent = torch.outer(joint.sum(1), joint.sum(0))
        information = (joint * (joint / independent).log()).sum()
        gaps.append(abs(float(information / (0.5 * chi_square_divergence(joint))) - 1))
    assert gaps[0] < 0.05
    assert gaps[1] / gaps[0] == pytest.approx(0.5, abs=0.05)
    assert gaps[2] / gaps[1] == pytest.approx(0.5, abs=0.05)


def test_trained_layer_on_fixed_features_approaches_the_prediction():
    features = gaussian(8, 2, 3) + 0.7
    errors = []
    for epsilon in (0.1, 0.01):
        joint = weak_joint(epsilon)
        weight = torch.zeros(6, 2, dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        minimized(
            lambda w=weight, b=bias, j=joint: excess(j, features, SoftmaxLayer(w, b)), weight, bias
        )
        predicted = weak_softmax(joint, features)
        trained = weight.detach() - joint.sum(0) @ weight.detach()
        errors.append(float((trained - predicted.weight).norm() / predicted.weight.norm()))
        bias_error = bias.detach() - predicted.bias
        bias_error = bias_error - joint.sum(0) @ bias_error  # a constant is free
        assert float(bias_error.abs().max()) < 5 * epsilon**2
    assert errors[1] < 0.02
    assert errors[1] / errors[0] == pytest.approx(0.1, abs=0.03)


def test_trained_features_before_a_fixed_layer_approach_the_prediction():
    layer = SoftmaxLayer(
        gaussian(6, 2, 4), weak_joint(0.01).sum(0).log() + 0.01 * gaussian(6, 1, 5)[:, 0]
    )
    joint = weak_joint(0.01)
    features = torch.zeros(8, 2, dtype=torch.float64, requires_grad=True)
    minimized(lambda: excess(joint, features, layer), features)
    predicted = weak_features(joint, layer)
    error = (features.detach() - predicted).norm() / predicted.norm()
    assert float(error) < 0.03


def test_one_free_feature_approaches_the_first_mode():
    cosines, ratios = [], []
    for epsilon in (0.1, 0.01):
        joint = weak_joint(epsilon)
        features = gaussian(8, 1, 6).mul(0.1).requires_grad_()
        weight = gaussian(6, 1, 7).mul(0.1).requires_grad_()
        bias = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        minimized(
            lambda s=features, w=weight, b=bias, j=joint: excess(j, s, SoftmaxLayer(w, b)),
            features, weight, bias,
        )  # fmt: skip
        sigma, f, _ = dependence_modes(joint)
        p_x = joint.sum(1)
        s = features.detach()[:, 0]
        s = s - p_x @ s
        cosines.append(abs(float(p_x @ (s * f[:, 0]) / (p_x @ s.square()).sqrt())))
        loss = excess(joint, features.detach(), SoftmaxLayer(weight.detach(), bias.detach()))
        ratios.append(float(loss / (0.5 * sigma[1:].square().sum())))
    assert cosines[0] > 0.98
    assert cosines[1] > 0.9999
    assert ratios[1] == pytest.approx(1.0, abs=0.01)


def test_predicted_excess_is_the_exact_one_to_second_order():
    gaps = []
    for epsilon in (0.02, 0.002):
        joint = weak_joint(epsilon)
        features = gaussian(8, 2, 8) + 0.5
        layer = SoftmaxLayer(
            epsilon * gaussian(6, 2, 9), joint.sum(0).log() + epsilon * gaussian(6, 1, 10)[:, 0]
        )
        predicted = weak_excess_loss(joint, features, layer)
        gaps.append(abs(float(excess(joint, features, layer) / predicted) - 1))
    assert gaps[1] < 0.01
    assert gaps[1] < 0.2 * gaps[0]


def test_modes_have_the_least_predicted_excess():
    joint = weak_joint(0.3)
    sigma, f, g = dependence_modes(joint)
    layer = SoftmaxLayer(sigma[:2] * g[:, :2], joint.sum(0).log())
    predicted = weak_excess_loss(joint, f[:, :2], layer)
    torch.testing.assert_close(predicted, 0.5 * sigma[2:].square().sum())


def test_modes_predict_each_other():
    """The layer on the leading f is sigma g, and the features before sigma g are f."""
    joint = weak_joint(0.5)
    sigma, f, g = dependence_modes(joint, 3)
    layer = weak_softmax(joint, f)
    torch.testing.assert_close(layer.weight, sigma * g, atol=1e-12, rtol=0)
    torch.testing.assert_close(layer.bias, joint.sum(0).log(), atol=1e-12, rtol=0)
    torch.testing.assert_close(weak_features(joint, layer), f, atol=1e-10, rtol=0)


def test_bias_is_the_log_prior_less_the_mean_feature():
    joint = weak_joint(0.5)
    features = gaussian(8, 3, 1) + 2
    layer = weak_softmax(joint, features)
    mean = joint.sum(1) @ features
    torch.testing.assert_close(layer.bias, joint.sum(0).log() - layer.weight @ mean)
    np.testing.assert_allclose(joint.sum(0) @ layer.weight, 0.0, atol=1e-14)


def test_labelled_examples_are_a_table_of_their_own():
    target = torch.arange(50) % 4
    features = gaussian(50, 3, 2)
    layer = weak_softmax(joint_table(torch.arange(50), target), features)
    centered = features - features.mean(0)
    means = torch.stack([centered[target == y].mean(0) for y in range(4)])
    expected = torch.linalg.solve(centered.T @ centered / 50, means.T).T
    torch.testing.assert_close(layer.weight, expected)


def test_hidden_weight_of_one_hot_inputs_gives_the_predicted_features():
    """On one-hot inputs the regression is exact: W t is the wanted feature over the slope."""
    joint = weak_joint(0.3)
    layer = SoftmaxLayer(gaussian(6, 2, 1), joint.sum(0).log())
    slope = torch.tensor([0.25, 0.5])
    weight = weak_hidden_weight(joint, torch.eye(8), layer, slope)
    wanted = weak_features(joint, layer)
    moved = slope * (torch.eye(8).double() @ weight.T)
    p_x = joint.sum(1)
    torch.testing.assert_close(moved - p_x @ moved, wanted - p_x @ wanted)


def test_trained_hidden_weight_before_a_fixed_layer_approaches_the_prediction():
    inputs, weight = torch.tanh(gaussian(8, 4, 1)), gaussian(6, 2, 2)
    errors = []
    for epsilon in (0.01, 0.001):
        joint = weak_joint(epsilon)
        layer = SoftmaxLayer(weight, joint.sum(0).log() - weight.sum(1) / 2)  # of mean feature 1/2
        hidden = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
        shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        minimized(
            lambda h=hidden, c=shift, j=joint, y=layer: (
                1e3 * excess(j, torch.sigmoid(inputs @ h + c), y)
            ),
            hidden, shift,
        )  # fmt: skip
        predicted = weak_hidden_weight(joint, inputs, layer, torch.full((2,), 0.25))
        errors.append(float((hidden.detach().T - predicted).norm() / predicted.norm()))
    assert errors[1] < 0.005
    assert errors[1] / errors[0] == pytest.approx(0.1, abs=0.03)


def test_impossible_values_and_constant_features_are_defined():
    joint = torch.zeros(5, 4, dtype=torch.float64)
    joint[:3, :2] = torch.tensor([[2.0, 1.0], [1.0, 1.0], [1.0, 3.0]])
    layer = weak_softmax(joint, gaussian(5, 2, 3))
    assert bool(layer.weight.isfinite().all())
    assert layer.bias.isfinite().tolist() == [True, True, False, False]
    assert bool(weak_features(joint, layer).isfinite().all())
    assert bool(weak_excess_loss(joint, gaussian(5, 2, 3), layer).isfinite())
    constant = weak_softmax(joint, torch.ones(5, 2))
    assert not constant.weight.any()


def test_bad_layers_and_features_are_refused():
    joint = weak_joint(0.1)
    layer = weak_softmax(joint, gaussian(8, 2, 0))
    with pytest.raises(ValueError, match=r"features must have shape \(8, k\)"):
        weak_softmax(joint, gaussian(6, 2, 0))
    with pytest.raises(ValueError, match="features must be finite"):
        weak_softmax(joint, gaussian(8, 2, 0) / 0.0)
    with pytest.raises(ValueError, match=r"layer.bias must have shape \(6,\)"):
        weak_features(joint, SoftmaxLayer(layer.weight, layer.bias[:5]))
    with pytest.raises(ValueError, match="columns"):
        weak_excess_loss(joint, gaussian(8, 3, 0), layer)
    with pytest.raises(ValueError, match=r"slope must have shape \(2,\)"):
        weak_hidden_weight(joint, torch.eye(8), layer, torch.tensor([1.0, 0.0]))
    with pytest.raises(TypeError, match="floating"):
        weak_softmax(joint, torch.ones(8, 2, dtype=torch.int64))
