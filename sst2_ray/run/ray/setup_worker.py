"""Script that a raylet of this process's own starts for every worker, in place of Ray's of the same name.

Ray's imports Ray, half a second of a core, to set variables and start the worker's Python. This one does it with the standard
library alone. It goes by that name since the raylet leaves it out for workers without a runtime environment.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

_CONTEXT, _LANGUAGE = "--serialized-runtime-env-context", "--language"
"""Arguments that the raylet adds for this script: the runtime environment as its agent has made it, and the worker's language."""

_BEYOND_VARIABLES = ("command_prefix", "override_worker_entrypoint")
"""Parts of a runtime environment that are left to Ray's script: containers, conda."""


def main(words: list[str]) -> None:
    """Become the worker. `words`: Ray's script for workers and its arguments, those for this script among them."""
    own = {name: value for name, _, value in (word.partition("=") for word in words) if name in (_CONTEXT, _LANGUAGE)}
    context = json.loads(own.get(_CONTEXT, "{}"))
    if own.get(_LANGUAGE) != "PYTHON" or any(context.get(name) for name in _BEYOND_VARIABLES):
        script = next(word for word in words if word.endswith(".py"))
        os.execv(sys.executable, [sys.executable, str(Path(script).with_name("setup_worker.py")), *words])
    for name, value in context.get("env_vars", {}).items():
        # A variable in the value is replaced, by nothing if there is none, as Ray does.
        os.environ[name] = re.sub(r"\$\{[A-Z0-9_]+\}", "", os.path.expandvars(value))
    command = shlex.split(context.get("py_executable") or shlex.quote(sys.executable))
    os.execvp(command[0], [*command, *(word for word in words if word.partition("=")[0] not in own)])


if __name__ == "__main__":
    main(sys.argv[1:])
