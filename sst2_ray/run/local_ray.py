"""A Ray of this process's own on this machine: what it is given, so that it starts on laptops, in containers and under Slurm."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import resource
import secrets
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from sst2_ray.cgroups import memory_limit, num_usable_cpus
from sst2_ray.errors import FailureClass, InputError, RunFailedError, Sst2RayError
from sst2_ray.run.environment import OWN_RAY_ENV, worker_env, yielding_children
from sst2_ray.run.planning.nodes import this_machine, told_resources

if TYPE_CHECKING:
    from sst2_ray.run.ray.fork_server import ForkServer
    from sst2_ray.run.tokenizing import Caller

T = TypeVar("T")

_LONGEST_SOCKET = "/session_2026-11-26_14-52-46_123456_1234567/sockets/plasma_store.1"
_TMP = "/tmp"  # nosec B108 - Ray makes folders of its own below it; its paths must be short

"""Path of the longest socket below Ray's folder. The kernel takes paths of sockets of at most `_SOCKET_BYTES`."""

_SOCKET_BYTES = 107

_LEAST_FILES, _MOST_FILES = 256, 65536
"""Open files of a process: what a local Ray needs, and as many as it is given."""

OBJECT_STORE_SHARE = 0.3
"""Share of the memory that the object store may take: Ray's own default."""

OBJECT_STORE_BYTES = 10**10
"""Most memory of the object store: Ray refuses to start where /dev/shm does not hold a larger one."""


def start_local_ray(ray: ModuleType) -> None:
    """Start Ray on this machine alone, its workers forked from a process that has imported what they need.

    Raises InputError where too few files may be open, and RunFailedError where Ray does not start: too few processes, a
    full disk, settings of Ray's own.
    """
    allow_open_files()
    try:
        _start(ray)
    except (Sst2RayError, ImportError):
        raise
    except Exception as error:  # Ray's processes have logged the reason, if anything has
        said = " ".join(str(error).split())[:300]
        logs = f"{short_temp_dir()}/ray/session_latest/logs"
        raise RunFailedError(
            f"Ray does not start on this machine ({type(error).__name__}: {said}); its logs are below {logs}",
            failure_class=FailureClass.WORKER_LOST,
        ) from None


_ahead: list[ForkServer] = []
"""The server that `forking_ahead` has started and no Ray uses yet, if there is one."""


@contextlib.contextmanager
def forking_ahead() -> Iterator[None]:
    """Start the process that workers are forked from now: it imports while data are read and checked.

    Where Ray has not been started by the end, because the input is wrong or there is nothing to do, it is ended.
    On a single core it would only slow the checks down.
    """
    is_first = not _ahead and num_usable_cpus() > 1
    try:
        if is_first:
            with contextlib.suppress(InputError, OSError):  # raised again, in its turn, when Ray starts
                allow_open_files()
                _ahead.extend(_fork_server())
        yield
    finally:
        if is_first:
            while _ahead:
                _ahead.pop().end()


def caller_ahead() -> Caller:
    """Return what calls functions in a fork of the process that has imported transformers, or here where there is none.

    Call this before Ray starts, what it returns from any thread; functions and their results are pickled.
    """
    servers = tuple(_ahead)

    def call(work: Callable[[], T], /) -> T:
        from sst2_ray.run.ray.fork_server import NotServedError

        for server in servers:
            with contextlib.suppress(NotServedError):
                return server.call(work)
        return work()

    return call


def _fork_server() -> list[ForkServer]:
    """Start a server with what Ray's own processes get; an empty list where workers start the plain way."""
    from sst2_ray.run.ray.fork_server import ForkServer

    with yielding_children(), _deaf_to_hangups():
        server = ForkServer.start(worker_env(use_gpu=this_machine().gpus > 0), short_temp_dir())
    return [server] if server is not None else []


def _start(ray: ModuleType) -> None:
    from sst2_ray.run.ray.few_processes import few_processes
    from sst2_ray.run.ray.fork_server import light_setup
    from sst2_ray.run.ray.state import (
        keeping_signal_handlers,
        loopback_only,
        own_process_groups,
        patient_start,
        raylet_pid,
    )

    for name, value in OWN_RAY_ENV.items():
        os.environ.setdefault(name, value)
    secure_token()
    servers = [_ahead.pop()] if _ahead else _fork_server()
    try:
        with (
            yielding_children(), loopback_only(), keeping_signal_handlers(), _deaf_to_hangups(), own_process_groups(),
            patient_start(), light_setup(), few_processes(),
        ):  # fmt: skip
            ray.init(
                address="local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
                runtime_env={"py_executable": servers[0].py_executable} if servers else None,
                _temp_dir=f"{short_temp_dir()}/ray",
                **resources(),
            )
            for server in servers:
                # What Ray gives a worker and its library reads once, at import.
                job = ray.get_runtime_context().get_job_id()
                server.ray_runs({"RAY_RAYLET_PID": str(raylet_pid()), "RAY_JOB_ID": job})
    except BaseException:
        for server in servers:
            server.end()
        raise


def allow_open_files() -> None:
    """Raise this process's limit of open files as far as it may. Raises InputError where even that is too few.

    Ray's processes inherit the limit; one that reaches it aborts, and leaves others behind.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < _LEAST_FILES:
        raise InputError(
            f"only {most} files may be open at once, Ray needs {_LEAST_FILES}; raise the limit (ulimit -Hn)"
        )


@contextlib.contextmanager
def _deaf_to_hangups() -> Iterator[None]:
    """Start processes that SIGHUP does not end: a closed terminal sends it to all of them, and the run needs them to stop in order.

    They inherit that it is blocked, as Ray does with SIGINT; one that comes meanwhile reaches this process afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def resources() -> dict[str, int]:
    """Return the resources that Ray is told, where it would find others by itself.

    Ray takes the machine's cores whatever the process's affinity is, none where the quota is below one, and the machine's
    memory where a cgroup further down limits it. RAY_OVERRIDE_RESOURCES, Ray's own variable, goes before.
    """
    told = told_resources()
    found = {} if "CPU" in told else {"num_cpus": num_usable_cpus()}
    limit = memory_limit()
    if limit is not None and not {"memory", "object_store_memory"} & set(told):
        store = min(int(OBJECT_STORE_SHARE * limit), OBJECT_STORE_BYTES)
        found |= {"object_store_memory": store, "_memory": limit - store}
    return found


def short_temp_dir() -> str:
    """Return the folder for Ray's session, in which the paths of its sockets are short enough for the kernel.

    RAY_TMPDIR, else TMPDIR, else /tmp; where the one that is set is too long, /tmp.
    """
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or _TMP
    fits = len(os.fsencode(f"{folder}/ray{_LONGEST_SOCKET}")) <= _SOCKET_BYTES
    return folder if fits and os.access(folder, os.W_OK) else _TMP


def secure_token() -> None:
    """Have the token with which Ray's processes know each other in a file for this user alone.

    Ray writes `~/.ray/auth_token` so that everybody can read it, and fails where there is no home that can be written: the
    file then lies in a folder that is deleted at the end. What the user has set (RAY_AUTH_MODE, RAY_AUTH_TOKEN,
    RAY_AUTH_TOKEN_PATH) stays.
    """
    if {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        return
    try:
        path = Path.home() / ".ray" / "auth_token"
        if path.is_file() and os.access(path, os.R_OK):
            with contextlib.suppress(PermissionError):  # of another user, who shares it
                if stat.S_IMODE(path.stat().st_mode) & 0o077:
                    path.chmod(0o600)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_token(path)
    except (OSError, RuntimeError):  # read-only, of another user, or there is no home at all
        folder = tempfile.mkdtemp(prefix="sst2-ray-", dir=short_temp_dir())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _write_token(Path(folder, "auth_token"))
        os.environ["RAY_AUTH_TOKEN_PATH"] = f"{folder}/auth_token"


def _write_token(path: Path) -> None:
    with contextlib.suppress(FileExistsError):  # a start at the same time has just written one
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(file, "w", encoding="ascii") as opened:
            opened.write(secrets.token_hex(32))
