"""``python -m lastlayer.cli`` is the command line too."""

from lastlayer.cli.commands import main

main()
