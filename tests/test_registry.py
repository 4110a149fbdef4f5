"""The registry of named parts, and the heads in it."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from lastlayer import registry as registry_module
from lastlayer.heads import HEADS, DropMax, Head, build_head
from lastlayer.registry import Registry


@pytest.fixture
def shapes() -> Registry[int]:
    shapes = Registry[int](kind="shape", group="example.shapes")
    shapes.add("triangle", 3, description="three sides")
    shapes.add("square", 4, description="four sides")
    return shapes


@pytest.fixture
def install(monkeypatch):
    """Return a function that pretends packages with these entry points were installed."""

    def pretend(group: str, **values: str) -> None:
        entries = [EntryPoint(name, value, group) for name, value in values.items()]
        monkeypatch.setattr(
            registry_module,
            "entry_points",
            lambda *, group: [entry for entry in entries if entry.group == group],
        )

    return pretend


def test_parts_are_found_by_name_and_listed_in_order(shapes):
    assert shapes.get("square") == 4
    assert shapes.names() == ["triangle", "square"]
    assert shapes.describe() == {"triangle": "three sides", "square": "four sides"}


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_ones(shapes):
    with pytest.raises(ValueError, match=r"unknown shape 'sqare'\. Did you mean 'square'\?"):
        shapes.get("sqare")
    with pytest.raises(ValueError, match=r"unknown shape 'xyz'\. Known: triangle, square$"):
        shapes.get("xyz")


def test_a_name_is_registered_once(shapes):
    with pytest.raises(ValueError, match="shape 'square' is registered already"):
        shapes.add("square", 5, description="")
    assert shapes.get("square") == 4


def test_the_decorator_registers_and_returns_what_it_decorates():
    makers = Registry[object](kind="maker", group="example.makers")

    @makers.register("five", description="makes five")
    def five() -> int:
        return 5

    assert makers.get("five") is five
    assert five() == 5


def test_an_installed_packages_part_is_found_and_listed_after_ours(shapes, install):
    install("example.shapes", pi="math:pi", square="math:tau")
    assert shapes.get("pi") == pytest.approx(3.14159, abs=1e-5)
    assert shapes.names() == ["triangle", "square", "pi"]
    assert shapes.describe()["pi"] == "from math:pi"
    # A third party does not replace a part of ours.
    assert shapes.get("square") == 4


def test_an_entry_point_is_loaded_only_when_it_is_asked_for(shapes, install):
    install("example.shapes", broken="no_such_module_at_all:part")
    assert "broken" in shapes.names()
    assert shapes.get("square") == 4
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        shapes.get("broken")


def test_a_third_partys_head_is_built_by_name(install):
    install("lastlayer.heads", theirs="lastlayer.heads:DropMax")
    assert isinstance(build_head("theirs", 3, 2), DropMax)


def test_every_head_has_a_name_of_its_own_and_one_line_about_it():
    descriptions = HEADS.describe()
    expected = {
        "softmax", "label-smoothing", "sparsemax", "entmax15", "sampled", "sampled-learned",
        "class-dropout", "attention", "dropmax-prior", "dropmax", "dropmax-iclr", "dropmax-exact",
    }  # fmt: skip
    assert expected <= set(descriptions)
    for name in expected:
        assert 10 < len(descriptions[name]) < 80
        assert isinstance(build_head(name, 3, 2), Head)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dropmax", {"posterior": "variational", "estimator": "concrete", "form": "neurips"}),
        ("dropmax-prior", {"posterior": "prior", "form": "neurips", "entropy": "all"}),
        ("dropmax-iclr", {"posterior": "prior", "form": "iclr", "entropy": "non-target"}),
        ("dropmax-exact", {"posterior": "variational", "estimator": "exact"}),
        ("sampled-learned", {"proposal": "learned"}),
        ("entmax15", {"alpha": 1.5}),
    ],
)
def test_named_heads_have_the_options_of_their_name(name, options):
    head = build_head(name, 3, 2)
    assert {key: getattr(head, key) for key in options} == options


def test_an_unknown_head_and_an_unknown_option_are_named():
    with pytest.raises(ValueError, match=r"unknown head 'dropmx'\. Did you mean 'dropmax'"):
        build_head("dropmx", 3, 2)
    with pytest.raises(ValueError, match=r"head 'softmax' does not take the options .*temperature"):
        build_head("softmax", 3, 2, temperature=0.1)
