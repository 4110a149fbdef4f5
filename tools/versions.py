"""Run the suite with the oldest versions that pyproject.toml admits, and with the newest released.

``python3.11 tools/versions.py oldest`` and ``python3.13 tools/versions.py newest foreign`` make an
environment for each (``.venv-oldest`` ...; several GB where torch comes with CUDA), run the tests
in it and write what came of it into ``results/versions.json``. What follows ``--`` goes to pytest,
as in ``newest -- -n 2``. Not part of continuous integration.

The sessions:

- ``oldest``: every package at its lower bound, which pip must be able to install together; by the
  oldest Python that is admitted; deprecations are no errors here;
- ``newest``: every package as released; by the newest Python there is, which the newest NumPy and
  SciPy may need;
- ``foreign``: the same with timm, transformers and ONNX, so that what concerns foreign networks
  runs on real ones and is not skipped.

A plain script and no nox: what nox would do here is three calls of ``venv`` and ``pip``; the lower
bounds as constraints and the record of versions and counts would remain to be written.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "versions.json"
FOREIGN = ("timm", "transformers", "onnx", "onnxruntime", "onnxscript")
SESSIONS = {"oldest": (), "newest": (), "foreign": FOREIGN}
# What an old release's neighbors deprecate says nothing about this library.
NO_DEPRECATIONS = ("-W", "default::DeprecationWarning", "-W", "default::FutureWarning")
NOT_TESTED = ("dev",)  # extras that bring no package the library or its tests use


def lower_bounds(project: dict) -> dict[str, str]:
    """Return {package: lowest admitted version} of a pyproject's dependencies and extras."""
    extras = project["optional-dependencies"]
    rows = [row for name, rows in extras.items() if name not in NOT_TESTED for row in rows]
    bounds = {}
    for row in [*project["dependencies"], *rows]:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", row)
        if match is None:
            raise ValueError(f"{row!r} has no lower bound of the form name>=version")
        bounds[match[1]] = match[2]
    return bounds


def make_environment(session: str, project: dict, folder: Path) -> Path:
    """Install the library with all that it is tested with; return the environment's Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    extras = ",".join(name for name in project["optional-dependencies"] if name not in NOT_TESTED)
    command = [python, "-m", "pip", "install", "-e", f"{ROOT}[{extras}]"]
    command += ["--upgrade", "--upgrade-strategy", "eager"]
    with tempfile.TemporaryDirectory() as scratch:
        if session == "oldest":
            pins = Path(scratch) / "lower-bounds.txt"
            pins.write_text("".join(f"{k}=={v}\n" for k, v in lower_bounds(project).items()))
            command += ["-c", pins]
        subprocess.run([*command, *SESSIONS[session]], check=True)
    return python


def run_tests(python: Path, arguments: list[str]) -> dict[str, object]:
    """Run the suite; return the counts, what failed and why tests were skipped."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        subprocess.run([python, "-m", "pytest", f"--junitxml={report}", *arguments], cwd=ROOT)
        return read_report(report)


def read_report(report: Path) -> dict[str, object]:
    """Return the counts, failures and reasons for skipping of a JUnit report of pytest."""
    failed, skipped, passed = [], Counter[str](), 0
    for case in ElementTree.parse(report).iter("testcase"):
        outcomes = {child.tag: child for child in case}
        if "failure" in outcomes or "error" in outcomes:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in outcomes:
            skipped[outcomes["skipped"].get("message", "")] += 1
        else:
            passed += 1
    return {
        "passed": passed,
        "failed": len(failed),
        "failures": sorted(set(failed)),
        "skipped": dict(sorted(skipped.items())),
    }


def installed_versions(python: Path, names: list[str]) -> dict[str, str]:
    """Return {package: installed version} of an environment."""
    code = (
        "import importlib.metadata, json, sys; "
        "print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))"
    )
    command = [python, "-c", code, *names]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def git_revision() -> str:
    """Return the name of the commit that is tested, with a plus if files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    """Run the sessions named on the command line; return 1 if a test failed in one of them."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sessions", nargs="+", choices=SESSIONS)
    parser.add_argument("--envs", type=Path, default=ROOT, help="folder of the environments")
    options = parser.parse_args(words[:cut])

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = project["requires-python"].removeprefix(">=")
    if "oldest" in options.sessions and not platform.python_version().startswith(f"{lowest}."):
        parser.error(f"run oldest with Python {lowest}, not {platform.python_version()}")
    failures = 0
    for session in options.sessions:
        python = make_environment(session, project, options.envs.resolve() / f".venv-{session}")
        names = [*lower_bounds(project), *SESSIONS[session]]
        arguments = [*(NO_DEPRECATIONS if session == "oldest" else ()), *words[cut + 1 :]]
        done = {
            "revision": git_revision(),
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            **run_tests(python, arguments),
            "versions": dict(sorted(installed_versions(python, names).items())),
        }
        print(f"{session}: {done['passed']} passed, {done['failed']} failed")
        failures += int(done["failed"])
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**results, session: done}, indent=2) + "\n")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
