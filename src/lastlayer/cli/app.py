"""The command line's application, to which every command adds itself."""

from __future__ import annotations

from cyclopts import App

app = App(
    name="lastlayer",
    help="The last layer of classifiers: train, compare and look into softmax and its rivals.",
    version=lambda: _version(),
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


def _version() -> str:
    from importlib.metadata import version

    return version("lastlayer")
