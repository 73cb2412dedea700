"""A process that has imported what Ray's workers need, and forks one whenever Ray starts a worker.

Run twice, with the standard library alone. `fork_worker.py serve SOCKET` imports once and waits. `fork_worker.py SOCKET
default_worker.py ...` is what Ray starts instead of Python: it has the server fork and hands over to the child its
arguments, environment, folder and open files, then ends; without a server that answers it becomes the worker itself.

The server forks only while it has a single thread, and only where there is no GPU: what CUDA holds does not survive a fork.
It ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import socket
import sys

MODULES = (
    "ray.train.torch",
    "ray.tune",
    "torch",
    "transformers",
    "deepspeed",
    "scipy.stats",
    "sst2_ray.launch.trial",
    "sst2_ray.launch.worker",
)
"""What drivers, controllers and training workers import, in one process."""

_HEADER = 8


# ---- the client: what Ray starts


def hand_over(path: str, argv: list[str]) -> int:
    """Ask the server for a worker. Returns when it runs; raises OSError where there is no server."""
    order = json.dumps({"argv": argv, "environ": dict(os.environ), "cwd": os.getcwd()}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [len(order).to_bytes(_HEADER, "big")], [0, 1, 2])
        connection.sendall(order)
        return int(connection.recv(64) or b"0")


# ---- the server


def serve(path: str) -> None:
    """Listen first, so that whoever comes early waits instead of importing by itself; then import; then fork on demand."""
    import gc
    import select
    import signal

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    gc.collect()
    gc.freeze()  # or the first collection of every child would copy all pages
    if len(os.listdir("/proc/self/task")) > 1:
        return
    while True:
        # Standard input is a pipe whose other end the driver holds: it closes when the driver ends, however it ends.
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return
        connection, _ = listener.accept()
        if _fork(connection, listener):
            return


def _import_all() -> None:
    import importlib

    for name in MODULES:
        importlib.import_module(name)


def _fork(connection: socket.socket, listener: socket.socket) -> bool:
    """True in the child, when the worker has ended."""
    with connection:
        head, files, _, _ = socket.recv_fds(connection, _HEADER, 3)
        order = json.loads(_read(connection, int.from_bytes(head, "big")))
        pid = os.fork()
        if pid:
            for file in files:
                os.close(file)
            connection.sendall(str(pid).encode())
            return False
    listener.close()
    _become_worker(order, files)
    return True


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _become_worker(order: dict, files: list[int]) -> None:
    """What exec would have set up, and then Ray's worker script."""
    import random
    import runpy
    import signal

    import numpy as np

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for file, standard in zip(files, (0, 1, 2)):
        os.dup2(file, standard)
        os.close(file)
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["cwd"])
    for folder in reversed(order["environ"].get("PYTHONPATH", "").split(os.pathsep)):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
    random.seed()
    np.random.seed()  # children of one parent would all draw the same
    sys.argv = order["argv"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except BaseException:
        import traceback
        open(f"/tmp/forkerr-{os.getpid()}", "w").write(traceback.format_exc() + repr(order)[:3000])


def main(words: list[str]) -> None:
    if words[0] == "serve":
        sys.path[:] = json.loads(os.environ.pop("SST2_RAY_FORK_PATH"))
        serve(words[1])
        return
    path, worker = words[0], words[1:]
    try:
        hand_over(path, worker)
    except OSError:
        os.execv(sys.executable, [sys.executable, "-u", *worker])


if __name__ == "__main__":
    main(sys.argv[1:])
