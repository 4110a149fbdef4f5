"""``tools/versions.py``: which versions are the oldest, and what came of a run of the tests."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def versions() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("versions", ROOT / "tools" / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_oldest_versions_are_the_lower_bounds_of_the_package_and_of_its_extras(versions):
    project = {
        "dependencies": ["torch>=2.8", "numpy>=1.26.4"],
        "optional-dependencies": {
            "cluster": ["dask[array,distributed]>=2024.8"],
            "dev": ["lastlayer[test]", "ruff>=0.9"],  # brings nothing that is tested
        },
    }
    assert versions.lower_bounds(project) == {
        "torch": "2.8",
        "numpy": "1.26.4",
        "dask": "2024.8",
    }


@pytest.mark.parametrize("row", ["torch", "torch==2.8", "torch<3", "torch>=2.8,<3"])
def test_a_requirement_that_is_no_lower_bound_is_named(versions, row):
    with pytest.raises(ValueError, match=f"'{row}' has no lower bound"):
        versions.lower_bounds({"dependencies": [row], "optional-dependencies": {}})


def test_every_requirement_of_this_package_is_a_lower_bound(versions):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"torch", "numpy", "scikit-learn", "pytest"} <= set(versions.lower_bounds(project))


def test_failures_and_errors_are_failures_and_reasons_for_skipping_are_counted(versions, tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite name="pytest">'
        '<testcase classname="tests.a" name="test_good"/>'
        '<testcase classname="tests.a" name="test_bad"><failure message="no"/></testcase>'
        '<testcase classname="tests.a" name="test_broken"><error message="setup"/></testcase>'
        '<testcase classname="tests.b" name="test_one"><skipped message="no dask"/></testcase>'
        '<testcase classname="tests.b" name="test_two"><skipped message="no dask"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert versions.read_report(report) == {
        "passed": 1,
        "failed": 2,
        "failures": ["tests.a::test_bad", "tests.a::test_broken"],
        "skipped": {"no dask": 2},
    }
