"""Ends this machine when nobody needs it, without anybody's laptop: started on every node of a cloud by autostop.sh.

usage: autostop.py head --idle-minutes 30 --max-hours 72              no job, model or SSH connection for so long: the head ends
       autostop.py worker --head ADDRESS:PORT --max-hours 72          no head for --lost-minutes: the worker ends
A time of 0 never comes. Standard library only: it must work where Ray does not.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from socket import create_connection

SETTLE_S = 20.0
"""A machine that is being changed is not deleted."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Neither the dashboard on loopback nor a cloud's metadata is ever asked through a proxy."""
MANAGEMENT = "https://management.azure.com"
AT_WORK = (b"JobSupervisor", b"ServeController")
"""Ray's actors that run on the head as long as a job, or Ray Serve, does; their processes bear their names."""


def ask(url: str, *, method: str = "GET", body: object = None, timeout_s: float = 10.0, **headers: str) -> bytes:
    """Return the answer's body. `body`: sent as JSON. Raises OSError where there is no answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None
    if body is not None:
        data, named["Content-Type"] = json.dumps(body).encode(), "application/json"
    with DIRECT.open(urllib.request.Request(url, data, method=method, headers=named), timeout=timeout_s) as answer:
        return bytes(answer.read())


def told_by(dashboard: str, path: str) -> object:
    """Return what the dashboard answers. Raises OSError or ValueError where it does not."""
    token = Path("~/.ray/auth_token").expanduser()
    headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.is_file() else {}
    return json.loads(ask(f"{dashboard}{path}", **headers))


def runs_a_job(dashboard: str, proc: Path = Path("/proc")) -> bool:
    """Return True while a job has not ended; where the dashboard does not answer, as long as its process is there."""
    try:
        return any(job.get("status") not in ENDED for job in told_by(dashboard, "/api/jobs/"))
    except (OSError, ValueError, AttributeError, TypeError):
        return works(proc)


def works(proc: Path) -> bool:
    """Return True while a process of Ray's runs a job or serves a model."""
    for file in proc.glob("[0-9]*/cmdline"):
        try:
            title = file.read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if title.startswith(b"ray::") and any(name in title for name in AT_WORK):
            return True
    return False


def serves(dashboard: str) -> bool:
    """Return True while Ray Serve has an application: no job runs for a model that was deployed."""
    try:
        return bool(told_by(dashboard, "/api/serve/applications/").get("applications"))
    except (OSError, ValueError, AttributeError):
        return False


def has_ssh(port: int, proc: Path = Path("/proc/net")) -> bool:
    """Return True while somebody is connected by SSH: a shell, or the tunnel of `sst2-ray submit`."""
    for name in ("tcp", "tcp6"):
        file = proc / name
        for line in file.read_text().splitlines()[1:] if file.is_file() else ():
            local, state = line.split()[1], line.split()[3]
            if state == "01" and int(local.rpartition(":")[2], 16) == port:  # 01: ESTABLISHED
                return True
    return False


def answers(address: str) -> bool:
    """Return True where something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        with create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False


def uptime_s() -> float:
    """Return the seconds since this machine was started."""
    return float(Path("/proc/uptime").read_text().split()[0])


def reason_to_end(flags: argparse.Namespace) -> str:
    """Block until there is a reason to end this machine; return it."""
    needed = time.monotonic()
    while True:
        if flags.max_hours and uptime_s() > 3600 * flags.max_hours:
            return f"runs for {flags.max_hours:g} hours"
        if flags.role == "head":
            if runs_a_job(flags.dashboard, Path(flags.proc)) or has_ssh(flags.ssh_port) or serves(flags.dashboard):
                needed = time.monotonic()
            limit, why = flags.idle_minutes, "no job and no SSH connection"
        else:
            if answers(flags.head):
                needed = time.monotonic()
            limit, why = flags.lost_minutes, f"no head at {flags.head}"
        if limit and time.monotonic() - needed > 60 * limit:
            return f"{why} for {limit:g} minutes"
        time.sleep(flags.poll_s)


def delete_in_the_cloud(cloud: str) -> None:
    """Let the cloud delete a machine that would stay and bill after a shutdown, with the rights of its own account if it has them."""
    if cloud == "gcp":
        root = "http://metadata.google.internal/computeMetadata/v1/instance"
        token = json.loads(ask(f"{root}/service-accounts/default/token", Metadata_Flavor="Google"))["access_token"]
        zone, name = (ask(f"{root}/{key}", Metadata_Flavor="Google").decode() for key in ("zone", "name"))
        url = f"https://compute.googleapis.com/compute/v1/{zone}/instances/{name}"
    elif cloud == "azure":
        root = "http://169.254.169.254/metadata"
        resource = f"{MANAGEMENT}/".replace(":", "%3A").replace("/", "%2F")
        given = ask(f"{root}/identity/oauth2/token?api-version=2018-02-01&resource={resource}", Metadata="true")
        token = json.loads(given)["access_token"]
        path = ask(f"{root}/instance/compute/resourceId?api-version=2021-02-01&format=text", Metadata="true").decode()
        machine = f"{MANAGEMENT}{path}?api-version=2024-07-01"
        take_along(machine, token)
        url = f"{machine}&forceDeletion=true"
    else:
        return
    ask(url, method="DELETE", timeout_s=60, Authorization=f"Bearer {token}")


def take_along(machine: str, token: str) -> None:
    """Have Azure delete disk, network cards and their addresses with the machine: Ray's template does not, and they would bill on."""
    found = json.loads(ask(machine, Authorization=f"Bearer {token}"))["properties"]
    cards = [
        {"id": card["id"], "properties": {"deleteOption": "Delete"}}
        for card in found["networkProfile"]["networkInterfaces"]
    ]
    for card in cards:
        try:
            let_go_of_address(f"{MANAGEMENT}{card['id']}?api-version=2024-07-01", token)
        except (OSError, ValueError, KeyError) as error:  # the machine is the dearer part
            print(f"autostop: its public address stays ({type(error).__name__}: {error})", flush=True)
    disk = {"osDisk": {"deleteOption": "Delete"}}
    change = {"properties": {"storageProfile": disk, "networkProfile": {"networkInterfaces": cards}}}
    ask(machine, method="PATCH", body=change, timeout_s=60, Authorization=f"Bearer {token}")
    time.sleep(SETTLE_S)


def let_go_of_address(card: str, token: str) -> None:
    """Have Azure delete the public address of a network card, which costs as long as it exists, with its machine."""
    found = json.loads(ask(card, Authorization=f"Bearer {token}"))
    places = [place["properties"] for place in found["properties"]["ipConfigurations"]]
    addresses = [place["publicIPAddress"] for place in places if "publicIPAddress" in place]
    for address in addresses:
        address["properties"] = {**address.get("properties", {}), "deleteOption": "Delete"}
    if addresses:
        ask(card, method="PUT", body=found, timeout_s=60, Authorization=f"Bearer {token}")


def main(argv: list[str]) -> int:
    """Wait, then end this machine."""
    parser = argparse.ArgumentParser(prog="autostop.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("role", choices=["head", "worker"])
    parser.add_argument("--idle-minutes", type=float, default=30.0)
    parser.add_argument("--lost-minutes", type=float, default=15.0)
    parser.add_argument("--max-hours", type=float, default=72.0)
    parser.add_argument("--head", default="", help="HOST:PORT of the head's Ray, for workers")
    parser.add_argument("--cloud", choices=["aws", "gcp", "azure"], default="aws")
    parser.add_argument("--dashboard", default="http://127.0.0.1:8265")
    parser.add_argument("--ssh-port", type=int, default=22)
    parser.add_argument("--proc", default="/proc", help="folder of the processes")
    parser.add_argument("--poll-s", type=float, default=20.0)
    parser.add_argument("--command", default="sudo -n shutdown -h now")
    flags = parser.parse_args(argv)
    if flags.role == "worker" and not flags.head:
        parser.error("worker needs --head HOST:PORT")
    print(f"autostop: {flags.role}, {vars(flags)}", flush=True)
    why = reason_to_end(flags)
    print(f"autostop: this machine ends: {why}", flush=True)
    while True:
        try:
            delete_in_the_cloud(flags.cloud)
        except (OSError, ValueError, KeyError) as error:
            print(
                f"autostop: the cloud does not delete it ({type(error).__name__}: {error}); shutting down", flush=True
            )
        done = subprocess.run(flags.command, shell=True, check=False)
        print(f"autostop: {flags.command}: exit code {done.returncode}", flush=True)
        if done.returncode == 0:
            return 0
        time.sleep(60)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
