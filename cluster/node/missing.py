"""Exit 0 if this interpreter has what a pyproject.toml declares and a lock pins, else name what is missing.

usage: missing.py PYPROJECT LOCK [REQUIREMENT...]     runs on a node before anything is installed: standard library and packaging only
"""

import importlib.metadata
import re
import sys
import tomllib


def unsatisfied(requirements: list[str]) -> list[str]:
    """Return the requirements that the installed distributions do not meet."""
    from packaging.requirements import Requirement  # Ray depends on it: where it is missing, so is Ray

    lacking = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(f"{text} (not installed)")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            lacking.append(f"{text} (has {installed})")
    return lacking


def differing(lock: str) -> list[str]:
    """Return the pins of a lock that what is installed does not have; what is missing may belong to another build of torch."""
    found = []
    for name, pinned in re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE):
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed.partition("+")[0] != pinned.partition("+")[0]:
            found.append(f"{name}=={pinned} (has {installed})")
    return found


def main() -> int:
    """Print what is missing; return 1 where something is."""
    with open(sys.argv[1], "rb") as project, open(sys.argv[2], encoding="utf-8") as lock:
        wanted, pins = [*tomllib.load(project)["project"]["dependencies"], *sys.argv[3:]], lock.read()
    try:
        lacking = [*unsatisfied(wanted), *differing(pins)]
    except ImportError:
        lacking = ["ray and everything else"]
    for text in lacking:
        print(f"setup: missing {text}", file=sys.stderr)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
