#!/usr/bin/env bash
# Starts the spot watcher of this node in the background, once. It asks the cloud for a notice and drains the node through Ray,
# so that training writes a checkpoint and leaves before the machine is taken. Nothing happens where the package has no watcher.
set -eu
SRC="$HOME/.sst2-ray/src"
[ -f "$SRC/sst2_ray/cluster/spot_watcher.py" ] || exit 0
PID_FILE="$HOME/.sst2-ray/spot_watcher.pid"
# By its name: after a reboot the number may be that of another process.
[ -f "$PID_FILE" ] && grep -qs spot_watcher "/proc/$(cat "$PID_FILE")/cmdline" && exit 0
# No .pyc files: they would change the mounted folder, and the autoscaler would sync it again.
PYTHONPATH="$SRC" PYTHONDONTWRITEBYTECODE=1 setsid nohup python -m sst2_ray.cluster.spot_watcher "$@" \
  > "$HOME/.sst2-ray/spot_watcher.log" 2>&1 < /dev/null &
echo $! > "$PID_FILE"
