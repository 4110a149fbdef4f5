"""What attaching, inserting, explaining and exporting do on networks of other libraries.

Run ``python studies/foreign_networks.py --name before`` where torchvision, timm and transformers
are installed, and with ``--name after`` once something has changed. It builds more than fifty
networks without trained weights (``foreign/vision.py``, ``foreign/hugging_face.py``), tries every
part on each (``foreign/parts.py``, ``foreign/processes.py``) and says of each cell: works;
refused, by a message of the library's own; network cannot, not even alone; wrong, without a word;
crash. Every cell runs on its own in a process that is ended when the cell takes too long, and is
written at once: a second run does what is left, ``--only none`` nothing but the table, which has
the runs side by side. On an idle core all of it takes about twenty minutes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from foreign.processes import DISTRIBUTED, run_on_two
from foreign.tables import as_markdown
from foreign.workers import Worker, networks

import lastlayer
from lastlayer._files import atomic_write

RESULTS = Path(__file__).resolve().parents[1] / "results" / "foreign-networks"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "onnx", "onnxruntime")
PARTS = (
    "attach",
    "attach dropmax",
    "insert",
    "class maps",
    "feature report",
    "compile",
    "export",
    "onnx",
    DISTRIBUTED,
)


def revision() -> str:
    """Return the version of the library, and the last commit that changed it if that is known."""
    command = ["git", "log", "-1", "--format=%h", "--", "."]
    folder = Path(lastlayer.__file__).parent
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return " ".join((lastlayer.__version__, found.stdout.strip())).strip()


class Cells:
    """Outcomes by network and part, in a file that is whole after each of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = json.loads(path.read_text()) if path.exists() else {}
        self.cells: dict[str, dict[str, Any]] = found.get("networks", {})
        self.versions = {"lastlayer": revision()}
        self.versions |= {name: importlib.metadata.version(name) for name in PACKAGES}

    def has(self, network: str, part: str) -> bool:
        return part in self.cells.get(network, {})

    def put(self, network: str, part: str, cell: dict[str, Any]) -> None:
        """Take up a cell, show it, and write all of them."""
        self.cells.setdefault(network, {})[part] = cell
        print(f"{network}, {part}: {cell['status']}  {cell['note'][:120]}", flush=True)
        order = {name: index for index, name in enumerate(networks())}
        cells = dict(sorted(self.cells.items(), key=lambda item: order.get(item[0], len(order))))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary:
            found = {"versions": self.versions, "networks": cells}
            temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default="after", help="of the run: before, after")
    parser.add_argument("--only", default="*", help="pattern of networks, such as 'timm *'")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--again", action="store_true", help="run cells that are there, too")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds for a cell")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    cells = Cells(arguments.out / f"{arguments.name}.json")
    names = [name for name in networks() if fnmatchcase(name, arguments.only)]
    wanted = [
        (name, part)
        for name in names
        for part in arguments.parts
        if arguments.again or not cells.has(name, part)
    ]
    worker = Worker(arguments.limit)
    for name, part in wanted:
        if part != DISTRIBUTED:
            cells.put(name, part, worker.run(name, part))
    worker.close()
    several = [name for name, part in wanted if part == DISTRIBUTED]
    for name, cell in run_on_two(several, arguments.limit):
        cells.put(name, DISTRIBUTED, cell)

    runs = {}
    for name in ("before", "after"):
        path = arguments.out / f"{name}.json"
        if path.exists():
            runs[name] = json.loads(path.read_text())
    with atomic_write(arguments.out / "README.md") as temporary:
        temporary.write_text(as_markdown(runs, PARTS))


if __name__ == "__main__":
    main()
