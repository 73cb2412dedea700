"""SSH to hosts: commands, and a tunnel to the private dashboard that is reopened when it breaks."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess  # nosec B404: ssh is the only thing started here, never through a shell
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sst2_ray.cluster.file import DASHBOARD_PORT, ClusterFile, own_folder
from sst2_ray.errors import InputError
from sst2_ray.network import free_port


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine that SSH reaches."""

    address: str
    user: str
    key: Path | None = None
    known_hosts: Path | None = None
    """Own file of host keys: cloud addresses are reused by other machines, which must not poison the user's."""
    proxy_command: str | None = None

    def command(self, *options: str) -> list[str]:
        """Return `ssh` up to and with the destination, with everything that makes it fail instead of asking."""
        base = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR"]
        # The first key seen is kept; a different one later is refused: who could swap it would get the cluster's token.
        base += ["-o", "StrictHostKeyChecking=accept-new"]
        # A laptop that slept: notice within a minute that the other side is gone.
        base += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
        if self.known_hosts:
            base += ["-o", f"UserKnownHostsFile={self.known_hosts}"]
        if self.key:
            base += ["-i", str(self.key), "-o", "IdentitiesOnly=yes"]
        if self.proxy_command:
            base += ["-o", f"ProxyCommand={self.proxy_command}"]
        return [*base, *options, f"{self.user}@{self.address}"]

    def run(self, script: str, *, stdin: str = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `script` in a login shell with the host's own ~/.bashrc, as `ray up` runs its commands; never raises for its exit code."""
        # -i: Ubuntu's ~/.bashrc returns at once in a shell that is not interactive, and PATH is set there.
        remote = f"bash --login -i -c {shlex.quote('source ~/.bashrc >/dev/null 2>&1; ' + script)}"
        try:
            return subprocess.run(  # nosec B603
                [*self.command(), remote], capture_output=True, text=True, timeout=timeout_s, input=stdin, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(
                args=[], returncode=255, stdout="", stderr=f"no answer within {timeout_s:.0f} s"
            )


def host_of(cluster: ClusterFile, address: str, key: Path | None) -> Host:
    """Return the host at `address`, with the user that the cluster file gives."""
    folder = own_folder()
    return Host(
        address=address,
        user=cluster.auth.text("ssh_user", "ubuntu"),
        key=key,
        known_hosts=folder / f"known_hosts_{cluster.name or 'cluster'}",
        proxy_command=cluster.auth.text("ssh_proxy_command") or None,
    )


class Tunnel:
    """`ssh -L` from a free local port to the head's dashboard, which listens on the head's loopback only."""

    def __init__(self, host: Host, *, remote_port: int = DASHBOARD_PORT, local_port: int | None = None) -> None:
        self.host = host
        self.remote_port = remote_port
        self.local_port = local_port or free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Return the address for a job client; it stays the same when the tunnel is reopened."""
        return f"http://127.0.0.1:{self.local_port}"

    @property
    def pid(self) -> int | None:
        """Return the process id of ssh while the tunnel is open."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def ensure(self, *, timeout_s: float = 30.0) -> None:
        """Open the tunnel unless it is open. Raises InputError with ssh's own words where it cannot be opened."""
        if self.pid is not None:
            return
        options = ("-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{self.local_port}:127.0.0.1:{self.remote_port}")
        self._process = subprocess.Popen(  # nosec B603
            # `cat` ends with its input, and ssh with it: however this process ends, the tunnel ends, too.
            [*self.host.command(*options), "cat"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C asks what to do with the job: the tunnel must live to carry the answer
        )  # fmt: skip
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise InputError(
                    f"ssh to {self.host.user}@{self.host.address}: {self._explain(self._process.communicate()[1])}"
                )
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.local_port), timeout=1):
                return
            time.sleep(0.1)
        self.close()
        raise InputError(
            f"ssh to {self.host.user}@{self.host.address}: no tunnel within {timeout_s:.0f} s; is the head up and port 22 open to you?"
        )

    def _explain(self, stderr: str) -> str:
        text = " ".join(stderr.split()) or "ended without a word"
        if "IDENTIFICATION HAS CHANGED" in text:
            return f"the host key changed; if the head was made anew, remove {self.host.known_hosts}, else somebody is in between"
        if "Permission denied" in text:
            return f"{text}; is {self.host.key or 'your default key'} the key of this cluster?"
        return text

    def close(self) -> None:
        """End ssh; safe to call again."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
            for stream in (self._process.stdin, self._process.stderr):
                if stream:
                    stream.close()
            self._process = None

    def __enter__(self) -> Tunnel:
        self.ensure()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
