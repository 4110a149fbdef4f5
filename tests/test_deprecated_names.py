"""What was public under another name still works, and says the new one."""

from __future__ import annotations

import sys
import types

import pytest

from lastlayer import functional, heads
from lastlayer._deprecated import renamed
from lastlayer.functional import dropmax, meta_sampling


@pytest.fixture
def room():
    module = types.ModuleType("lastlayer_room_for_tests")
    module.here = object()
    module.__getattr__ = renamed(
        module.__name__, {"old": "here", "moved": "lastlayer.heads.Softmax"}
    )
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_an_old_name_gives_the_new_object_and_warns_at_the_line_that_used_it(room):
    with pytest.warns(DeprecationWarning, match=r"\.old is now lastlayer_room_for_tests\.here"):
        found = room.old
    assert found is room.here
    with pytest.warns(DeprecationWarning, match=r"now lastlayer\.heads\.Softmax") as caught:
        assert room.moved is heads.Softmax
    assert caught[0].filename == __file__


def test_an_unknown_name_is_an_attribute_error_as_of_any_module(room):
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = room.nothing


@pytest.mark.parametrize("name", ["expected_log_prob", "negative_entropy", "draw_classes"])
def test_functions_that_moved_to_the_module_of_their_method_are_found(name):
    with pytest.warns(DeprecationWarning, match=rf"functional\.{name} is now lastlayer.functional"):
        found = getattr(functional, name)
    assert found is getattr(dropmax, name, None) or found is getattr(meta_sampling, name)
