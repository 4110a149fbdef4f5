import pytest

from lastlayer.training.variants import nest, parse_grid, parse_option, parse_word


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("softmax", "softmax", {}),
        ("  dropmax ", "dropmax", {}),
        ("dropmax:", "dropmax", {}),
        ("class-dropout:retain_prob=0.4", "class-dropout", {"retain_prob": 0.4}),
        ("a:x=1,y=true,z=text", "a", {"x": 1, "y": True, "z": "text"}),
        ('a:x="1"', "a", {"x": "1"}),
    ],
)
def test_a_head_is_a_name_and_toml_options(text, name, options):
    assert parse_word(text) == (name, options)


@pytest.mark.parametrize("text", ["", ":x=1", "  "])
def test_a_head_needs_a_name(text):
    with pytest.raises(ValueError, match="needs a name"):
        parse_word(text)


@pytest.mark.parametrize("text", ["dropmax:temperature", "dropmax:=3"])
def test_an_option_needs_a_key_and_a_value(text):
    with pytest.raises(ValueError, match=r"key=value; got '(temperature|=3)'"):
        parse_word(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=1", 1),
        ("k=1e-3", 0.001),
        ("k=[1, 2]", [1, 2]),
        ("k=false", False),
        ("k=best", "best"),
        ("k=a=b", "a=b"),
        ("k=", ""),
    ],
)
def test_a_value_is_toml_or_else_text(text, value):
    key, parsed = parse_option(text)
    assert (key, parsed, type(parsed)) == ("k", value, type(value))


def test_a_grid_keeps_entries_and_values_in_order():
    grid = parse_grid(["optimizer.lr=1e-2,1e-3", "training.select=last,best"])
    assert grid == {"optimizer.lr": [0.01, 0.001], "training.select": ["last", "best"]}
    assert list(grid) == ["optimizer.lr", "training.select"]


@pytest.mark.parametrize("entry", ["optimizer.lr", "optimizer.lr=", "=1"])
def test_a_grid_entry_needs_values(entry):
    with pytest.raises(ValueError, match="written"):
        parse_grid([entry])


@pytest.mark.parametrize("entries", [["a=1,1"], ["a=1", "a=2"], ["a=0.1,1e-1"]])
def test_a_grid_holds_everything_once(entries):
    with pytest.raises(ValueError, match="once"):
        parse_grid(entries)


def test_a_dotted_entry_is_nested_tables():
    assert nest("a", 1) == {"a": 1}
    assert nest("a.b.c", [2]) == {"a": {"b": {"c": [2]}}}
