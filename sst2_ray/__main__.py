"""`python -m sst2_ray COMMAND ...`."""

import atexit
import contextlib
import os
import sys

from sst2_ray.cli import main
from sst2_ray.errors import ExitCode


def _keep_exit_code(codes: list[object]) -> None:
    """Exit at once where the command was stopped.

    Under `-m`, Python ends itself by SIGINT if a KeyboardInterrupt has ever passed through `exec`, which every import of a
    dataclass calls, although it was handled and the exit code is another one.
    """
    if codes == [ExitCode.STOPPED]:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(ExitCode.STOPPED)


if __name__ == "__main__":
    codes: list[object] = []
    atexit.register(_keep_exit_code, codes)  # before all others, so that it is called after them
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
        raise
