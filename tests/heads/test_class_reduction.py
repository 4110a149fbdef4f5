"""The terms outside the bound, meant over classes instead of summed."""

from __future__ import annotations

import pytest
import torch

from lastlayer.heads import AuxiliarySoftmax, DropMax

D, K, N = 5, 4, 6
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("posterior", ["variational", "prior"])
@pytest.mark.parametrize("num_samples", [1, 2])  # the one-pass objective, and the composed one
def test_mean_is_sum_over_classes_divided_by_their_number(posterior: str, num_samples: int) -> None:
    options = {"posterior": posterior, "num_samples": num_samples, "dtype": torch.float64}
    summed = DropMax(D, K, entropy_weight=2.0, auxiliary_weight=3.0, **options)
    meant = DropMax(
        D, K, entropy_weight=2.0, auxiliary_weight=3.0, class_reduction="mean", **options
    )
    meant.load_state_dict(summed.state_dict())
    noise = torch.randn(num_samples, N, K, dtype=torch.float64)
    expected, out = summed(FEATURES, TARGET, noise=noise), meant(FEATURES, TARGET, noise=noise)
    for name, value in expected.terms.items():
        scale = 1 / K if name in ("entropy", "auxiliary") else 1.0
        torch.testing.assert_close(out.terms[name], scale * value)


def test_mean_of_the_auxiliary_softmax() -> None:
    summed = AuxiliarySoftmax(D, K, dtype=torch.float64)
    meant = AuxiliarySoftmax(D, K, class_reduction="mean", dtype=torch.float64)
    meant.load_state_dict(summed.state_dict())
    expected, out = summed(FEATURES, TARGET), meant(FEATURES, TARGET)
    torch.testing.assert_close(out.terms["auxiliary"], expected.terms["auxiliary"] / K)
    torch.testing.assert_close(out.terms["nll"], expected.terms["nll"])


@pytest.mark.parametrize("head", [DropMax, AuxiliarySoftmax])
def test_other_reductions_over_classes_are_refused(head: type) -> None:
    with pytest.raises(ValueError, match="class_reduction"):
        head(D, K, class_reduction="max")
