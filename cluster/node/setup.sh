#!/usr/bin/env bash
# Prepares one node; every cluster file runs it as a set-up command. Safe to run again: what is right is left alone.
# usage: setup.sh [REQUIREMENT...]     further packages for this node, e.g. the cloud's client library on the head
set -euo pipefail

HOME_DIR="$HOME/.sst2-ray"
VENV="$HOME_DIR/venv"
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# uv's version fixes which patch of Python it installs: Ray accepts only the same patch on every node.
UV_VERSION=0.9.5
PYTHON_VERSION=3.11

# --- settings of every shell, hence of Ray and of the jobs (each command of `ray up` is a fresh login shell)
umask 077
mkdir -p "$HOME_DIR"
cat > "$HOME_DIR/env" <<'ENV'
export PATH="$HOME/.sst2-ray/venv/bin:$PATH"
# Without a token anybody who reaches a node's agent port runs code as you.
export RAY_AUTH_MODE=token
# Ray kills a stopped job after 3 s; a checkpoint of a large model takes longer.
export RAY_JOB_STOP_WAIT_TIME_S=120
export RAY_USAGE_STATS_ENABLED=0
# Ray makes its session folder writable for everybody, and who can write there can replace the code that runs: it goes below a
# folder that only this user can enter. A short one: the paths of sockets take 107 bytes.
RAY_TMPDIR="/tmp/sst2-ray-$(id -un)"
[ -d "$RAY_TMPDIR" ] || mkdir -m 700 "$RAY_TMPDIR" 2> /dev/null
if [ -L "$RAY_TMPDIR" ] || [ ! -O "$RAY_TMPDIR" ] || [ "$(stat -c %a "$RAY_TMPDIR")" != 700 ]; then
  RAY_TMPDIR="$HOME/.sst2-ray/tmp"; mkdir -p -m 700 "$RAY_TMPDIR"  # somebody else was there first
fi
export RAY_TMPDIR
ENV
# At the top: some images leave ~/.bashrc early in a shell that is not interactive.
grep -qs 'sst2-ray/env' ~/.bashrc || { printf '%s\n' '. ~/.sst2-ray/env' | cat - ~/.bashrc 2>/dev/null > ~/.bashrc.new || true; mv ~/.bashrc.new ~/.bashrc; }
# shellcheck disable=SC1091  # written above
. "$HOME_DIR/env"

# --- the token came through file_mounts; rsync keeps the laptop's permissions, which may be too wide
[ -f ~/.ray/auth_token ] || { echo "setup: ~/.ray/auth_token is missing; list it under file_mounts" >&2; exit 2; }
chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token

# --- Python and the packages, unless all are there already (a prepared image, or the second run)
missing() { [ -x "$VENV/bin/python" ] && "$VENV/bin/python" "$HERE/missing.py" "$HOME_DIR/pyproject.toml" "$HERE/requirements.lock" "$@"; }
if missing "$@"; then
  echo "setup: everything is installed"
else
  if ! command -v uv > /dev/null || [ "$(uv --version | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    curl -LsSf "https://astral.sh/uv/$UV_VERSION/install.sh" | env UV_INSTALL_DIR="$HOME_DIR/bin" UV_NO_MODIFY_PATH=1 sh
  fi
  export PATH="$HOME_DIR/bin:$PATH"
  [ -x "$VENV/bin/python" ] || uv venv --python "$PYTHON_VERSION" --managed-python "$VENV"
  # The versions that the tests ran with, every one with its hash: a worker of tomorrow is the same as today's head.
  uv pip install --python "$VENV/bin/python" --require-hashes -r "$HERE/requirements.lock"
  [ $# -eq 0 ] || uv pip install --python "$VENV/bin/python" --constraint "$HERE/clouds.lock" "$@"
  missing "$@" || { echo "setup: packages are still missing after the installation, see above" >&2; exit 1; }
fi
echo "setup: $("$VENV/bin/python" -c 'import platform, ray; print("Python", platform.python_version(), "Ray", ray.__version__)')"
