"""A process that has imported what Ray's workers need, and forks whenever Ray starts one.

Run twice, with the standard library alone. `fork_worker.py serve SOCKET MODULE...` imports these modules, then those that
the first line of its standard input names, and waits. Before that line it forks for its driver too: see `_answer_calls`.
`fork_worker.py SOCKET default_worker.py ...` is what Ray
starts instead of Python: it has the server fork and hands its arguments, environment, folder and open files over to the
child, then ends; where no server answers it becomes the worker itself, by the plain way.

The server forks only while it has a single thread and has not touched CUDA: whoever forks with several threads may copy a
lock that nobody will release, and CUDA does not survive a fork.
It ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection, Listener

_READ_ONCE = ("RAY_JOB_ID", "RAY_RAYLET_PID", "RAY_AUTH_MODE")
"""Variables that Ray's library reads when it is imported: all workers that are forked have them in common."""

ANSWER_S = 30.0
"""A server that takes longer, its imports included, is not waited for; it forks nothing for a client that has gone."""

LOOK_S = 5.0
"""Seconds between two looks of the server whether its Ray still runs: the driver may go on without."""

CALLS = ".calls"
"""Ending of the socket's name on which the driver calls functions."""

CALLABLE_WITH = "transformers"
"""Module from whose import on these functions find most of what they would import in the driver."""

_HEADER = 8
"""Bytes that give the length of an order."""


# ---- the client: Ray starts it


def hand_over(path: str, argv: list[str]) -> None:
    """Have the server fork a worker and return when it runs. Raises OSError where no server does it."""
    values = {"argv": argv, "environ": dict(os.environ), "cwd": str(Path.cwd()), "niceness": os.nice(0)}
    order = json.dumps(values).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_S)
        connection.connect(path)
        socket.send_fds(connection, [len(order).to_bytes(_HEADER, "big")], [0, 1, 2])
        connection.sendall(order)
        if not connection.recv(64):
            raise OSError(f"{path}: the server ended without an answer")


# ---- the server


def serve(path: str, modules: list[str]) -> None:
    """Import, then fork on demand; clients that come before that wait: their own imports beside these would take longer.

    Returns in every child when it has ended as a worker, and in the server when the driver has gone.
    """
    import shutil

    server = os.getpid()
    try:
        _serve(path, modules)
    finally:
        if os.getpid() == server:
            shutil.rmtree(Path(path).parent, ignore_errors=True)


def _serve(path: str, modules: list[str]) -> None:
    import gc
    import signal
    from multiprocessing.connection import Listener

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    with Listener(f"{path}{CALLS}", "AF_UNIX") as calls:
        for name in modules:
            _import_all([name])
            if CALLABLE_WITH in sys.modules:
                _answer_calls(calls, wait=False)
        _answer_calls(calls, wait=True)
    rest = sys.stdin.readline()
    if not rest:
        return
    told = json.loads(rest)
    os.environ.update(told["environ"])
    if told["modules"]:
        _draw_class_ids_from_the_system()
        _import_all(told["modules"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    gc.collect()
    gc.freeze()  # or the first collection of every child would copy all pages
    if _num_threads() > 1:
        print(f"fork_worker: {_num_threads()} threads after the imports; workers start by themselves", file=sys.stderr)
        return
    if _has_touched_cuda():
        print("fork_worker: CUDA was touched by the imports; workers start by themselves", file=sys.stderr)
        return
    if "ray" in sys.modules and _id_in_a_child() == _id_in_a_child():
        print("fork_worker: all children would draw the same ids; workers start by themselves", file=sys.stderr)
        return
    order: dict[str, Any] | None = None
    while True:
        # Standard input is a pipe whose other end the driver holds: it closes when the driver ends, however it ends.
        ready = select.select([0, listener.fileno()], [], [], LOOK_S)[0]
        if 0 in ready or not Path("/proc", os.environ["RAY_RAYLET_PID"]).exists():
            return
        if not ready:
            continue
        connection, _ = listener.accept()
        # A client that died half-way is not worth the server.
        with connection, contextlib.suppress(OSError, EOFError, ValueError):
            order = _fork(connection)
        if order is not None:
            listener.close()
            _become_worker(order)
            return


def _answer_calls(calls: Listener, *, wait: bool) -> None:
    """Fork for each call of the driver that has come, and have the child return what the function returns.

    `wait`: until the driver has said on standard input that Ray runs, or has ended.
    """
    files = [0, calls._listener._socket]  # type: ignore[attr-defined]
    while (ready := select.select(files, [], [], None if wait else 0.0)[0]) and 0 not in ready:
        with calls.accept() as connection:
            if _num_threads() > 1 or _has_touched_cuda() or os.fork():
                continue  # the child answers; without one the driver hears of it at once
            try:
                _answer(connection)
            finally:
                os._exit(0)


def _answer(connection: Connection) -> None:
    """Call the function that the driver has sent, and send what it returns or raises; end when the driver has gone."""
    import threading

    environ, work = connection.recv()

    # The driver says nothing more: what comes is its end.
    threading.Thread(target=lambda: (connection.poll(None), os._exit(1)), daemon=True).start()
    os.nice(5)  # the server's imports, which every worker waits for, go before
    os.environ.clear()
    os.environ.update(environ)
    try:
        answer = (True, work())
    except Exception as error:
        answer = (False, error)
    connection.send(answer)


def _fork(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for a client. Returns its order in the child, with its standard files in their places, and None in the server."""
    order, files = _receive(connection)
    try:
        if any(order["environ"].get(name) != os.environ.get(name) for name in _READ_ONCE):
            return None  # of another job: without an answer it starts the plain way
        if order["environ"].get("LD_PRELOAD") not in (None, os.environ.get("LD_PRELOAD")):
            return None  # the loader would have to read it: a worker on CPUs, where this machine's have GPUs
        if select.select([connection], [], [], 0)[0]:
            return None  # the client has gone: it says nothing more while it waits
        pid = os.fork()
        if pid == 0:
            for file, standard in zip(files, (0, 1, 2), strict=True):
                os.dup2(file, standard)
            return order
        connection.sendall(str(pid).encode())
    finally:
        for file in files:
            os.close(file)
    return None


def _import_all(modules: list[str]) -> None:
    import importlib

    for name in modules:
        importlib.import_module(name)


def _draw_class_ids_from_the_system() -> None:
    """Draw ids for remote classes without Ray's own generator while Ray's modules are imported.

    Ray's native library seeds its generator with the first id that is drawn; if that was here, all children would draw the
    same ones.
    """
    import ray.actor
    from ray._raylet import ActorClassID

    class FromSystem:
        @staticmethod
        def from_random() -> Any:
            return ActorClassID(os.urandom(ActorClassID.size()))

    ray.actor.ActorClassID = FromSystem


def _id_in_a_child() -> bytes:
    """Return the first id that a child draws."""
    from ray._raylet import UniqueID

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, UniqueID.from_random().binary())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        return pipe.read()


def _has_touched_cuda(files: Path = Path("/proc/self/fd")) -> bool:
    """Tell whether this process has used a GPU: CUDA does not survive a fork. A driver's files stay open once used."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return True
    for path in files.iterdir():
        with contextlib.suppress(OSError):  # the file of this listing itself, closed by now
            if str(path.readlink()).startswith(("/dev/nvidia", "/dev/dxg")):
                return True
    return False


def _num_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive an order and the client's standard files."""
    head, files, _, _ = socket.recv_fds(connection, _HEADER, 3)
    left = int.from_bytes(head, "big")
    data = bytearray()
    while len(data) < left:
        more = connection.recv(left - len(data))
        if not more:
            raise EOFError
        data += more
    return json.loads(data), files


def _become_worker(order: dict[str, Any]) -> None:
    """Set up what exec would have set up, and run Ray's worker script as the main program."""
    import random
    import runpy
    import signal

    import numpy as np

    os.setsid()  # Ray may signal a worker's whole process group
    os.nice(order["niceness"] - os.nice(0))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["cwd"])
    for folder in reversed(order["environ"].get("PYTHONPATH", "").split(os.pathsep)):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
    random.seed()
    np.random.seed()  # children of one parent would all draw the same
    sys.argv = order["argv"]
    runpy.run_path(sys.argv[0], run_name="__main__")


def main(words: list[str]) -> None:
    if words[0] == "serve":
        del sys.path[0]  # the folder of this file
        serve(words[1], words[2:])
        return
    path, command = words[0], words[1:]
    # Ray repeats the driver's -s and -S before the script; the server's modules were found without them.
    worker = list(itertools.dropwhile(lambda word: word.startswith("-"), command))
    try:
        hand_over(path, worker)
    except OSError:
        os.execv(sys.executable, [sys.executable, "-u", *command])


if __name__ == "__main__":
    main(sys.argv[1:])
