"""The five-Gaussian task as a data source."""

from __future__ import annotations

from pathlib import Path

from lastlayer._checks import check_whole
from lastlayer.data.sources import SOURCES, Examples, Raw
from lastlayer.data.synthetic_information.gaussian_classes import FIVE_MEANS, gaussian_mixture

TEST_FRACTION = 0.2


@SOURCES.register(
    "gaussian-mixture", description="five normal classes in d dimensions; information known"
)
def gaussian_mixture_source(
    data_dir: Path | None = None,
    *,
    d: int = 1,
    balanced: bool = True,
    n: int = 50_000,
    sample_seed: int = 0,
) -> Raw:
    """Draw the five-Gaussian task; the notes say how much its inputs tell about the labels.

    Args:
        data_dir: not used.
        d: number of dimensions, at least 1.
        balanced: equal label probabilities, or 1 : 2 : 3 : 4 : 5.
        n: number of training examples, at least 5; a fifth as many test examples come on top.
        sample_seed: fixes the draw, whatever the seed of the run.

    Returns:
        Training and test examples.
    """
    check_whole("n", n, len(FIVE_MEANS))
    task = gaussian_mixture(d, balanced=balanced)
    everything = Examples(*task.sample(n + round(TEST_FRACTION * n), sample_seed))
    return Raw(
        train=Examples(everything.inputs[:n], everything.target[:n]),
        test=Examples(everything.inputs[n:], everything.target[n:]),
        class_names=tuple(f"mean {mean:g}" for mean in FIVE_MEANS),
        kind="vector",
        notes=(f"I(X; Y) = {task.mutual_information:.6f} nats, by quadrature.",),
    )
