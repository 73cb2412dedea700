#!/usr/bin/env bash
# Starts the watch that ends this machine when nobody needs it, in the background; a new start replaces the old one.
# usage: autostop.sh head|worker [FLAGS of autostop.py]
set -eu
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PID_FILE="$HOME/.sst2-ray/autostop.pid"
if [ -f "$PID_FILE" ] && grep -qs autostop.py "/proc/$(cat "$PID_FILE")/cmdline"; then kill "$(cat "$PID_FILE")" || true; fi
# Before set-up has run there is only the system's Python.
PYTHON="$(command -v python || command -v python3)"
# A session of its own, and nothing of Ray's in its name: `ray stop` must not end it.
setsid nohup "$PYTHON" "$HERE/autostop.py" "$@" >> "$HOME/.sst2-ray/autostop.log" 2>&1 < /dev/null &
echo $! > "$PID_FILE"
