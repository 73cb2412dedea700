"""Hosts on one machine: network, process, mount and IPC namespaces with an SSH server each, for a real `ray up`.

A host has its own address, hostname, processes, /tmp, home, /run and /dev/shm; the interpreter, the environment and one shared folder
are the same everywhere, as on machines made from one image. Root is needed; traffic stays on a bridge of this machine.

    with HostLab(tmp_path, count=3) as lab:
        lab.run(0, "hostname")
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).resolve().parents[2]


def missing_for_hosts() -> str:
    """Tell why hosts cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "root is needed to make namespaces"
    tools = [name for name in ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync") if shutil.which(name) is None]
    if not Path("/usr/sbin/sshd").exists():
        tools.append("sshd (openssh-server)")
    if tools:
        return f"not installed: {', '.join(tools)}"
    probe = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    return "" if probe.returncode == 0 else f"namespaces are not allowed here: {probe.stderr.strip()}"


@dataclass
class HostLab:
    """`count` hosts on a bridge; host i has the address `address(i)`, this machine `gateway`."""

    folder: Path
    count: int = 3
    first: int = 10
    """Last number of the first host's address."""
    prepared: bool = True
    """Homes hold the environment already, as an image with everything installed would."""
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tag = f"s{os.getpid() % 100000}"
        self.net = f"10.{64 + os.getpid() % 128}.{(os.getpid() >> 7) % 256}"
        self.gateway = f"{self.net}.1"
        self.bridge = f"{self.tag}br"
        self.key = self.folder / "key"
        self.shared = self.folder / "shared"
        """The same folder on every host and here, as shared storage would be."""
        self.home = self.folder / "laptop"
        """HOME of commands that a user would type here."""

    def address(self, index: int) -> str:
        """Return the address of host `index`."""
        return f"{self.net}.{self.first + index}"

    @property
    def addresses(self) -> list[str]:
        return [self.address(index) for index in range(self.count)]

    def __enter__(self) -> HostLab:
        for path in (self.shared, self.home / ".ssh"):
            path.mkdir(parents=True, exist_ok=True)
        _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key), "-C", "throw-away")
        try:
            _call("ip", "link", "add", self.bridge, "type", "bridge")
            _call("ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge)
            _call("ip", "link", "set", self.bridge, "up")
            for index in range(self.count):
                self._start(index)
            for index in range(self.count):
                self._wait(index)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process of every host and take the network away."""
        for index, process in enumerate(self._processes):
            # --kill-child: the end of `unshare` is the end of the host's first process, hence of all its processes.
            process.kill()
            process.wait()
            pids = subprocess.run(
                ["ip", "netns", "pids", self._ns(index)], capture_output=True, text=True, check=False
            ).stdout.split()
            for pid in pids:
                _kill(int(pid))
        self._processes.clear()
        for index in range(self.count):
            subprocess.run(["ip", "netns", "del", self._ns(index)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)

    def _ns(self, index: int) -> str:
        return f"{self.tag}h{index}"

    def root(self, index: int) -> Path:
        """Return the folder in which the host's own files lie on this machine: home at root/, tmp/ and so on."""
        return self.folder / f"host{index}"

    def _start(self, index: int) -> None:
        ns, root = self._ns(index), self.root(index)
        for name in ("tmp", "home/.ssh", "run/sshd", "etc"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "tmp").chmod(0o1777)
        (root / "home" / ".ssh").chmod(0o700)
        (root / "home").chmod(0o700)
        keys = root / "home" / ".ssh" / "authorized_keys"
        keys.write_text(self.key.with_suffix(".pub").read_text())
        keys.chmod(0o600)
        if self.prepared:
            environment = root / "home" / ".sst2-ray"
            environment.mkdir()
            (environment / "venv").symlink_to(sys.prefix)
        _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / "etc" / "hostkey"))
        (root / "etc" / "sshd_config").write_text(self._sshd_config(index))
        (root / "etc" / "init.sh").write_text(self._init(index))
        _call("ip", "netns", "add", ns)
        _call("ip", "link", "add", f"{self.tag}v{index}", "type", "veth", "peer", "name", "eth0", "netns", ns)
        _call("ip", "link", "set", f"{self.tag}v{index}", "master", self.bridge, "up")
        _call("ip", "-n", ns, "addr", "add", f"{self.address(index)}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _call("ip", "-n", ns, "link", "set", device, "up")
        # Ray finds its own address by the way to this one (it sends nothing). A whole default route would make every look-up
        # of a name wait for its time-out; without any, a machine announces 127.0.0.1.
        _call("ip", "-n", ns, "route", "add", "8.8.8.8/32", "via", f"{self.net}.254")
        with (root / "etc" / "init.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", ns, "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
                     "bash", str(root / "etc" / "init.sh")],
                    cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )
            )  # fmt: skip

    def _sshd_config(self, index: int) -> str:
        return textwrap.dedent(f"""\
            Port 22
            ListenAddress {self.address(index)}
            HostKey {self.root(index)}/etc/hostkey
            AuthorizedKeysFile .ssh/authorized_keys
            StrictModes no
            PermitRootLogin prohibit-password
            PasswordAuthentication no
            UsePAM no
            PidFile none
            MaxStartups 50
            """)

    def _init(self, index: int) -> str:
        root = self.root(index)
        # What every host sees at the path it has here; the host's own home and /tmp would hide it.
        same = dict.fromkeys([sys.base_prefix, sys.prefix, str(REPOSITORY), str(self.shared), str(root / "etc")])
        saved = root / "same"
        lines = ["set -e", "mount --make-rprivate /"]
        for number, path in enumerate(same):
            lines += [f"mkdir -p {saved}/{number}", f"mount --rbind {path} {saved}/{number}"]
        # By way of /mnt: the sources lie below the /root and /tmp that they hide.
        lines += [
            f"mount -t tmpfs tmpfs /mnt && mkdir /mnt/host && mount --rbind {root} /mnt/host",
            "mount --rbind /mnt/host/home /root",
            "mount --rbind /mnt/host/run /run",
            "mount -t tmpfs -o size=10g tmpfs /dev/shm",
            "mount --rbind /mnt/host/tmp /tmp",
        ]
        for number, path in enumerate(same):
            lines += [f"mkdir -p {path}", f"mount --rbind /mnt/host/same/{number} {path}"]
        lines += [
            f"hostname {self._ns(index)}",
            "env -i HOME=/root USER=root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8"
            f" /usr/sbin/sshd -D -f {root}/etc/sshd_config -E {root}/etc/sshd.log &",
            "set +e",
            "while :; do wait -n || sleep 1; done",  # as the first process it reaps what Ray leaves behind
        ]
        return "\n".join(lines) + "\n"

    def _wait(self, index: int) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.run(index, "true", check=False).returncode == 0:
                return
            time.sleep(0.2)
        log = (self.root(index) / "etc" / "init.log").read_text()
        raise RuntimeError(f"host {index} does not answer: {log}")

    def cut_off(self, index: int) -> None:
        """Take host `index` from the network for good, as if its power was gone."""
        _call("ip", "-n", self._ns(index), "link", "set", "eth0", "down")

    def ssh(self, index: int) -> list[str]:
        """Return an ssh command to host `index`."""
        quiet = [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "BatchMode=yes",
        ]
        return ["ssh", "-i", str(self.key), *quiet, f"root@{self.address(index)}"]

    def run(
        self, index: int, script: str, *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a script on host `index` with the settings of its ~/.bashrc."""
        return subprocess.run(
            [*self.ssh(index), "bash -s"],
            input=f"source ~/.bashrc >/dev/null 2>&1\n{script}\n",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )

    def laptop(self, *command: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command here as the user of the cluster would: own home, the repository as working folder."""
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of `laptop` commands: nothing of Ray's or AWS's that happens to be set here."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("RAY_", "AWS_")) and not key.lower().endswith("_proxy")
        }
        return {
            **kept,
            "HOME": str(self.home),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(REPOSITORY),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **more,
        }


def _kill(pid: int) -> None:
    """Send SIGKILL to a process that may have ended meanwhile."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
