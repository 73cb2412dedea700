"""Checks of the shell commands that a `ray up` file gives to its nodes: what has no effect, never ends, asks, or opens the machine."""

from __future__ import annotations

import functools
import re
import subprocess  # nosec B404: bash reads a command, and runs nothing

from sst2_ray.cluster.clouds.checks import check_harmful
from sst2_ray.cluster.doctor.commands import HEAD, WORKER, commands_of
from sst2_ray.cluster.doctor.dockerfile import BARE_NAME, locked_versions
from sst2_ray.cluster.file import ClusterFile, shipped
from sst2_ray.cluster.findings import Findings

_LEAST_OPEN_FILES = 4096
_NO_EFFECT = re.compile(
    r"^\s*(cd|pushd|export|source|\.|unset|alias|umask|ulimit|set|conda activate|micromamba activate|module load|pyenv shell|nvm use)"
    r"(\s[^;&|]*)?$|^\s*[A-Za-z_]\w*=\S*\s*$"
)
_NEVER_ENDS = re.compile(
    r"^\s*(?:(?:sudo|exec|env)\s+|\w+=\S+\s+)*(?:jupyter(?:-lab| lab|-notebook| notebook)\b|tensorboard\b|mlflow (?:ui|server)\b"
    r"|tail -[a-zA-Z]*[fF]|sleep inf|journalctl -\w*f|python3? -m http\.server|watch |n?v?h?top\s*$|nvidia-smi -l|dmesg -w|tmux attach"
    r"|serve run|(?:ba|z)?sh\s*$)"
)
_PACKAGES = re.compile(r"\b(apt-get|apt|yum|dnf)\s+(?:-\S+\s+)*(install|upgrade|dist-upgrade|full-upgrade|remove)\b")
_YES = re.compile(r"(^|\s)(-\w*y\w*|--yes|--assume-yes|-qq)\b")
_HARMFUL = (
    (
        r"\b(reboot|poweroff|halt|init [06])\b|(?<!-)\bshutdown\b(?!.*autostop)",
        "takes the machine down while `ray up` works on it",
        "remove it; autostop.sh ends machines",
    ),
    (r"(^|[\s;&|])read\s+(-\w+\s+)*['\"\w]", "waits for an answer that nobody gives", "a value in its place"),
    (r"\b(sudo -i|sudo su|su -|passwd)\s*$", "opens a shell and waits", "sudo COMMAND"),
    (
        r"\b(curl|wget)\b[^|;&]*http://[^|;&]*\|\s*(sudo\s+)?(ba|z)?sh",
        "runs what comes over an unencrypted line",
        "https://, and a version that does not move",
    ),
    (r"\bchmod\s+(-R\s+)?0?777\b", "lets every user of the node replace what runs", "chmod 700"),
    (r"\b(ufw|firewalld)\b.*\benable\b|systemctl start (ufw|firewalld)", "closes the ports of SSH and Ray", "remove it"),
    (r"--ip[= ]0\.0\.0\.0|--host[= ]0\.0\.0\.0", "listens for everybody who reaches the machine", "127.0.0.1"),
    (r"--index-url[= ]http://|--trusted-host", "takes packages over a line that anybody can change", "https://"),
    (r"sshpass\s|StrictHostKeyChecking=yes", "cannot work: nobody types a password or a fingerprint", "a key"),
    (r"\bray\s+(up|down|submit|attach)\b", "is a command of this machine, not of a node", "remove it"),
    (r"\bsudo\s+(-\S+\s+)*(bash|sh)\s+\S*setup\.sh", "prepares the home of root, and the jobs run as another user", "without sudo"),
    (r"\bAUTOSCALER_MAX_\w+=0\b", "no machine is ever asked for", "1"),
    (r"(^|[;&|]\s*)exit [1-9]", "ends with an error, and the node is given up", "remove it"),
    (r"\brm\b[^;&|]*auth_token", "removes the token: anybody who reaches the node runs code as you", "remove it"),
    (r"\b(pkill|killall)\b[^;&|]*\b(python3?|ray|raylet|sshd|bash)\b", "ends what prepares the node, too", "ray stop"),
    (r"\binstall\b[^;&|]*\bnvidia-(driver|utils|dkms|kernel)", "a driver over the image's own: the GPU is not found", "remove it"),
    (r"\bsudo\s+(-\S+\s+)*pip3?\s+install", "installs for the system's Python, which runs nothing here", "without sudo"),
    (r"--redis-password[= ]\S", "a secret that every user of the node can read; the token protects Ray", "remove it"),
)  # fmt: skip
"""Harmful commands of a node: pattern, harm, remedy."""


def check_shell_commands(cluster: ClusterFile, found: Findings) -> None:
    """Make every check of this module."""
    user = cluster.auth.text("ssh_user")
    for path, command in commands_of(cluster):
        told = len(found)
        _check_grammar(path, command, found)
        check_harmful(path, command, _HARMFUL, found, prefix=f"{_short(command)}: ")
        _check_effect(path, command, found)
        _check_packages(path, command, found)
        for home in re.findall(r"(?<![\w~])/home/([\w.-]+)/", command):
            if user and home != user:
                found.error(path, f"{_short(command)}: the home of {home}, and {user} logs in", "~/ in its place")
        files = re.search(r"\bulimit -n (\d+)", command)
        if files and int(files[1]) < _LEAST_OPEN_FILES:
            found.warning(path, f"ulimit -n {files[1]}: Ray opens a socket for each process and peer", "65536")
        if len(found) == told and re.search(r"[^&]&\s*$", command) and re.search(r"\bray (start|stop)\b", command):
            found.error(path, f"{_short(command)}: in the background, beside the next command", "without &")
    for key in (HEAD, WORKER):
        _check_order(key, cluster.document.texts(key), found)
    _check_synced(cluster, found)


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= 60 else line[:57] + "..."


@functools.cache
def _grammar_problem(command: str) -> str:
    """Return what the shell says of a command that it cannot read; empty where it can, or where there is no bash."""
    try:
        read = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, check=False)  # nosec B603 B607
    except OSError:
        return ""
    return " ".join(read.stderr.split())[:120] if read.returncode != 0 else ""


def _check_grammar(path: str, command: str, found: Findings) -> None:
    problem = _grammar_problem(command)
    if problem:
        found.error(path, f"{_short(command)}: the shell cannot read it: {problem}", "correct the quotation")


def _check_effect(path: str, command: str, found: Findings) -> None:
    """Check that a command does something, ends, and hands its operators to the program, not to the shell."""
    alone = re.sub(r"(^|\s)#.*", "", command)
    if _NO_EFFECT.search(alone):
        what = f"{_short(command)}: every command runs in a shell of its own, the next one knows nothing of it"
        found.error(path, what, "in one line with what needs it, joined by &&")
    last = re.split(r"&&|;", alone)[-1]
    if _NEVER_ENDS.search(last) and not re.search(r"&\s*$|nohup|setsid|systemd-run|timeout ", last):
        found.error(path, f"{_short(command)}: never ends, and `ray up` waits for it", "remove it, or nohup ... &")
    if re.search(r"\s[A-Za-z][\w.\[\]-]*[<>]=?\d", re.sub(r"'[^']*'|\"[^\"]*\"", "''", alone)):
        what = f"{_short(command)}: the shell takes > for a redirection, and the version is lost"
        found.error(path, what, "'NAME>=VERSION', in quotation marks")


def _check_packages(path: str, command: str, found: Findings) -> None:
    """Check what is installed: without questions, and no other versions than those that the tests ran with."""
    for part in re.split(r"&&|;|\|", command):
        if _PACKAGES.search(part) and not _YES.search(part):
            found.error(path, f"{_short(part)}: asks before it installs, and nobody answers", "-y")
        if re.search(r"\b(conda|mamba) (install|create|update)\b", part) and not _YES.search(part):
            found.error(path, f"{_short(part)}: asks before it installs, and nobody answers", "--yes")
        installed = re.search(r"\bpip3? install\b(.*)", part)
        if installed is not None:
            _check_versions(path, installed[1], found)
    for name, version in re.findall(r"(?:^|\s)['\"]?([A-Za-z][\w.-]+)==([^\s;'\"]+)", command):
        pinned = _clients().get(name.lower(), version)
        if "setup.sh" in command and pinned != version:
            what = f"{name} {version}, and cluster/node/clouds.lock holds it to {pinned}: the installation fails"
            found.error(path, what, f"{name}=={pinned}")


def _check_versions(path: str, packages: str, found: Findings) -> None:
    for name, version in re.findall(r"(?:^|\s)['\"]?([A-Za-z][\w.-]*)(?:\[[^\]]*\])?==([^\s;'\"]+)", packages):
        pinned = locked_versions().get(name.lower().replace("_", "-"), version)
        if pinned.partition("+")[0] != version.partition("+")[0] and name != "ray":
            found.error(path, f"installs {name} {version}, the lock has {pinned}", "remove it, or change the lock")
    loose = [word for word in packages.split() if BARE_NAME.fullmatch(word)]
    if loose and not re.search(r"(^|\s)(-r|-c|-e|--requirement|--constraint)\b", packages):
        what = f"installs {', '.join(loose)} at any version: a worker of tomorrow differs from today's head"
        found.warning(path, what, "NAME==VERSION, or --constraint")


def _clients() -> dict[str, str]:
    """Return the versions of the clouds' client libraries by name; none where the lock does not lie here."""
    lock = shipped("cluster/node/clouds.lock")
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))


def _check_order(key: str, commands: list[str], found: Findings) -> None:
    """Check that Ray is stopped before it is started, and not afterwards."""
    starts = [index for index, command in enumerate(commands) if re.search(r"\bray start\b", command)]
    stops = [index for index, command in enumerate(commands) if re.search(r"^\s*ray stop\b", command)]
    if starts and stops and max(stops) > max(starts):
        found.error(key, "`ray stop` behind the start: the node never joins", "ray stop first")
    if len(starts) > 1:
        found.error(key, f"starts Ray {len(starts)} times", "once")


def _check_synced(cluster: ClusterFile, found: Findings) -> None:
    """Check that what the head hands on to the workers is something that the head was given."""
    mounts = [remote.rstrip("/") for remote in cluster.document.section("file_mounts").raw]
    for name in cluster.document.texts("cluster_synced_files"):
        if not any(name == remote or name.startswith(f"{remote}/") for remote in mounts):
            what = f"{name} is handed from the head to the workers, and no file_mounts entry brings it to the head"
            found.warning("cluster_synced_files", what, "mount it, file_mounts reach the workers as well")
