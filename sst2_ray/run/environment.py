"""Setting of processes: the environment variables that Ray, torch and DeepSpeed read, and a scheduling policy.

No other module sets them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import platform
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from sst2_ray.errors import InputError, first_line
from sst2_ray.home import have_a_home

# The driver's own; Ray Train passes its RAY_TRAIN_* on to the controller and the workers.
DRIVER_ENV = {
    # The controller polls its workers this often, and a worker's report waits for it: 2 s by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Tune shows and writes nothing by itself: the sweep's display and the results table do.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Under `uv run` Ray would replace the workers' Python and ship the folder without its environment: nothing would start.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing phones home unless the user asks for it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "true",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}

# A Ray of this process's own, on one machine: its processes inherit it.
OWN_RAY_ENV = {
    # This machine is not taken away node by node: a process less a run.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Workers that Ray starts beforehand have another environment than a run's: nobody uses them.
    "RAY_prestart_worker_first_driver": "0",
}

# Of every worker process, before it imports anything.
WORKER_ENV = {
    "DS_LOG_LEVEL": "warning",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
    # Only --compile compiles, and lifts this; DeepSpeed decorates an optimizer's kernels: without it, every worker's start
    # pays for importing the compiler (1 s of CPU).
    "TORCHDYNAMO_DISABLE": "1",
}

# Whatever the user has set, in the driver and in every worker.
ALWAYS = {
    # With those of `accelerate launch` transformers would load weights and buffers on the first rank only.
    "ACCELERATE_USE_FSDP": "false",
    "ACCELERATE_USE_DEEPSPEED": "false",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    # The run is written for Ray Train V2, and imports what the first has not.
    "RAY_TRAIN_V2_ENABLED": "1",
}

# Unset in the driver: Tune ends with a traceback where they are set, and reads them for nothing else.
DROPPED = ("TUNE_RESULT_DIR", "RAY_AIR_LOCAL_CACHE_DIR")

# Not numbers, unlike the others that Tune and Ray Train read.
_TEXTS = ("TUNE_RESULT_DELIM", "TUNE_ORIG_WORKING_DIR", "RAY_TRAIN_CALLBACKS", "RAY_TRAIN_NCCL_RAS_ACTION")
_NUMBER = re.compile(r"\s*(-?\d+(\.\d*)?|auto|inf|true|false|)\s*", re.IGNORECASE)

# On CPU tensor shapes change every step. glibc gives the memory back to the kernel and faults it in again, page by page,
# which costs a third of the speed; jemalloc, which comes with Ray, is told to keep it for 30 s, in huge pages. Kept for
# ever, a worker's memory grows by a GiB a minute; kept for 5 s, it costs a tenth of the speed. One arena for all threads:
# what one has freed another takes.
JEMALLOC_CONF = "dirty_decay_ms:30000,muzzy_decay_ms:0,thp:always,metadata_thp:auto,narenas:1"

# Memory comes in segments that grow: micro-batches differ in size, and fixed blocks would leave holes between them.
GPU_ENV = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}

LOOPBACK = ("localhost", "127.0.0.1", "::1")

# Passed on from the driver's environment where they are set. Everybody who sees the dashboard sees them: secrets go
# through the progress actor (see progress_actor.SECRETS).
PASSED_ON = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HOME")


def prepare_process() -> None:
    """Set what every command needs, before any library reads it: a home, threads that are a number, loopback without a proxy."""
    have_a_home()
    drop_wrong_threads()
    reach_loopback_directly()


def prepare_driver() -> None:
    """Set the driver's variables, before ray is imported. Those that the user has set stay.

    Raises InputError for one that Tune or Ray Train would end at with a traceback.
    """
    prepare_process()
    os.environ.update(ALWAYS)
    for name in DROPPED:
        os.environ.pop(name, None)
    _check_ray_libraries()
    for name, value in DRIVER_ENV.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"(ray|transformers|torch|deepspeed|huggingface_hub)\b.*")
    # Said when ray.train is imported in a notebook; nothing here uses Ray's widgets.
    logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, in a notebook: no bars of it are shown


def _check_ray_libraries() -> None:
    for name, value in os.environ.items():
        if name.startswith(("TUNE_", "RAY_TRAIN_", "RAY_AIR_")) and name not in _TEXTS and not _NUMBER.fullmatch(value):
            raise InputError(f"{name}={value}: Ray reads a number there; give one, or unset it")
    for path in filter(None, map(str.strip, os.environ.get("RAY_TRAIN_CALLBACKS", "").split(","))):
        module, _, callback = path.rpartition(".")
        try:
            getattr(importlib.import_module(module), callback)
        except (ImportError, AttributeError, ValueError) as error:
            reason = first_line(error)
            raise InputError(f"RAY_TRAIN_CALLBACKS={path}: cannot be imported ({reason}); unset it") from None


def worker_env(*, use_gpu: bool, compile_threads: int | None = None) -> dict[str, str]:
    """Return the environment variables of the training workers.

    Args:
        use_gpu: whether a worker has a GPU.
        compile_threads: processes of each worker's compiler, which takes all of a node's cores by itself; None: nothing is
            compiled.
    """
    env = {name: os.environ.get(name, value) for name, value in WORKER_ENV.items()}
    if compile_threads is not None:
        env["TORCHINDUCTOR_COMPILE_THREADS"] = str(compile_threads)
    if use_gpu and not is_wsl() and not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
        env |= GPU_ENV
    library = _jemalloc()
    if not use_gpu and library is not None and "LD_PRELOAD" not in os.environ:
        env |= {"LD_PRELOAD": str(library), "MALLOC_CONF": JEMALLOC_CONF}
    return env | {name: os.environ[name] for name in PASSED_ON if name in os.environ} | ALWAYS


def is_wsl() -> bool:
    """Tell whether this is Linux inside Windows, whose driver has no segments that grow and no device files."""
    return "microsoft" in platform.release().lower()


def omp_num_threads() -> int | None:
    """Return the threads that OMP_NUM_THREADS grants; of a list for nested regions ("4,2") the first. None: no number."""
    words = [word.strip() for word in os.environ.get("OMP_NUM_THREADS", "").split(",")]
    return int(words[0]) if all(word.isdigit() and int(word) > 0 for word in words) else None


def reach_loopback_directly() -> None:
    """Have no library ask a proxy for this machine: what listens here, a tunnel or a tracker, is not there for a proxy."""
    names = {name.lower() for name, value in os.environ.items() if value}
    if names.isdisjoint(("http_proxy", "https_proxy", "all_proxy")):
        return
    for name in ("no_proxy", "NO_PROXY"):
        given = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" not in given:
            os.environ[name] = ",".join(dict.fromkeys([*given, *LOOPBACK]))


def drop_wrong_threads() -> None:
    """Unset an OMP_NUM_THREADS that is no number, before a library reads it: each would print a line and ignore it."""
    if omp_num_threads() is None:
        os.environ.pop("OMP_NUM_THREADS", None)


def _jemalloc() -> Path | None:
    """Find Ray's own copy of jemalloc. Every node has the same Ray; a loader that does not find it goes on without."""
    spec = importlib.util.find_spec("ray")
    folders = list(spec.submodule_search_locations or []) if spec else []
    library = Path(folders[0]) / "core" / "libjemalloc.so" if folders else None
    return library if library is not None and library.is_file() else None


@contextlib.contextmanager
def yielding_children() -> Iterator[None]:
    """Start processes that wait for the processor's next tick where training threads compute (SCHED_BATCH).

    Ray's processes wake a thousand times a second; each time they interrupt a worker's thread, all its threads wait.
    `compute_at_once` lifts it for the workers.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:  # not Linux; or the user's choice
        yield
        return
    _schedule(os.SCHED_BATCH)
    try:
        yield
    finally:
        _schedule(os.SCHED_OTHER)


def compute_at_once() -> None:
    """Let the calling thread, and those it starts, compute without waiting as Ray's processes do."""
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_BATCH:
        _schedule(os.SCHED_OTHER)


def _schedule(policy: int) -> None:
    with contextlib.suppress(PermissionError):  # a container may forbid it, and then all are alike
        os.sched_setscheduler(0, policy, os.sched_param(0))
