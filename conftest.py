"""One seed for the whole suite, and Hypothesis without a clock; for tests and doctests alike.

``pytest --seed N`` draws every unseeded random number, and Hypothesis's examples, anew; the
default is 0, so that the suite is the same in every run, order and number of processes.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Generator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, register_random, settings


class TorchRandom:
    """What Hypothesis calls to repeat an example: torch beside Python and NumPy, its own two."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = TorchRandom()  # Hypothesis holds it by a weak reference


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take ``--seed``."""
    parser.addoption("--seed", type=int, default=0, help="of random numbers in tests (default: 0)")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis reads its own option
def pytest_configure(config: pytest.Config) -> None:
    """Let Hypothesis repeat itself, unless a seed is given, and have all the time it needs."""
    if config.option.hypothesis_seed is None and config.option.seed:
        config.option.hypothesis_seed = config.option.seed
    register_random(TORCH_RANDOM)
    settings.register_profile(
        "lastlayer",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=config.option.hypothesis_seed is None,
        print_blob=True,
    )
    settings.load_profile("lastlayer")


def seed(config: pytest.Config, what: str) -> None:
    """Seed Python, NumPy and torch for ``what``, whatever ran before it."""
    number = zlib.crc32(f"{config.option.seed} {what}".encode())
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  (what libraries draw from when they are given nothing)
    torch.manual_seed(number)


# Hooks and not a fixture, which modules and fixtures of a wider scope would come before.


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Seed what a module draws while it is imported."""
    seed(collector.config, collector.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Seed what a fixture draws, whichever test asks for it first."""
    seed(request.config, f"{request.node.nodeid} {fixturedef.argname}")
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Seed what a test or a doctest draws."""
    seed(item.config, item.nodeid)
