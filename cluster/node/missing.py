"""Exit 0 if this interpreter satisfies a pyproject.toml's dependencies and further requirements, else name what is missing.

usage: missing.py PYPROJECT [REQUIREMENT...]     runs on a node before anything is installed: standard library and packaging only
"""

import importlib.metadata
import sys

import tomllib


def unsatisfied(requirements: list[str]) -> list[str]:
    """The requirements that the installed distributions do not meet."""
    from packaging.requirements import Requirement  # Ray depends on it: where it is missing, so is Ray

    lacking = []
    for text in requirements:
        requirement = Requirement(text)
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(f"{text} (not installed)")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            lacking.append(f"{text} (has {installed})")
    return lacking


def main() -> int:
    with open(sys.argv[1], "rb") as file:
        wanted = [*tomllib.load(file)["project"]["dependencies"], *sys.argv[2:]]
    try:
        lacking = unsatisfied(wanted)
    except ImportError:
        lacking = ["ray and everything else"]
    for text in lacking:
        print(f"setup: missing {text}", file=sys.stderr)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
