"""Machines in namespaces of this one: a laptop and nodes with sshd, for `ray up` as a user types it.

Everything hangs from one process with its own PID namespace: nothing inside can see, or end, a process outside, and
when it ends, networks, mounts and processes end with it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("lab.sh")
ROOT = SCRIPT.parents[2]
TOOLS = ("ip", "ps", "setpriv", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd")
OWN = ("--mount", "--uts", "--ipc", "--pid")
SSHD = """\
Port 22
HostKey {lab}/key
AuthorizedKeysFile {lab}/key.pub
PidFile none
StrictModes no
PasswordAuthentication no
UsePAM no
MaxStartups 100
MaxSessions 100
"""


def why_not() -> str | None:
    """What a lab lacks on this machine, or None."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux, for namespaces"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: iproute2 procps util-linux openssh-server openssh-client rsync)"
    trial = "ip link add lab type bridge && mount -t tmpfs tmpfs /run && mkdir /run/{l,u,w} && " \
            "mount -t overlay overlay -o lowerdir=/run/l,upperdir=/run/u,workdir=/run/w /run/l"  # fmt: skip
    tried = subprocess.run(["unshare", "--net", *OWN, "--fork", "bash", "-c", trial], capture_output=True, text=True)
    return f"namespaces, bridges or overlays are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Returns when the condition holds.

    Raises:
        AssertionError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{seconds:g} s passed: {what}"
        time.sleep(0.5)


class Lab:
    """A laptop, and nodes with the addresses 10.77.0.1, 10.77.0.2, …

    Args:
        folder: for homes, logs and keys; seen by all, so `shared` in it plays NFS.
        nodes: how many; none is on yet.
    """

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder, self.shared, self.key = folder, folder / "shared", folder / "key"
        self.shared.mkdir(parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        (folder / "sshd_config").write_text(SSHD.format(lab=folder))
        keep = [str(ROOT), sys.prefix, sys.base_prefix]
        network = ["setpriv", "--pdeathsig=KILL", "unshare", "--net"]  # ends with this process, however that ends
        self._laptop = self._machine(network, "laptop", str(folder), str(nodes), *keep)
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        wait_until((folder / "laptop" / "ready").exists, 30, f"no laptop; see {folder}")

    def address(self, number: int) -> str:
        """Of a node."""
        return f"10.77.0.{number}"

    def boot(self, number: int) -> None:
        """Turns a node on; returns when it answers."""
        self._inside(["ip", "link", "set", f"node{number}", "up"])
        network = self._enter(["ip", "netns", "exec", f"node{number}", "unshare"])
        arguments = ("node", str(self.folder), str(number), sys.prefix, sys.base_prefix)
        self._nodes[number] = self._machine(network, *arguments)
        log = self.folder / f"node{number}" / "sshd.log"
        wait_until(lambda: self._inside(["bash", "-c", f": < /dev/tcp/{self.address(number)}/22"]) == 0, 30, str(log))

    def kill(self, number: int) -> None:
        """A power cut: no process of the node ends in order, and its network falls silent first."""
        self._inside(["ip", "link", "set", f"node{number}", "down"])
        end(self._nodes.pop(number))

    def close(self) -> None:
        """Ends all machines."""
        for machine in (*self._nodes.values(), self._laptop):
            end(machine)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Starts a command on the laptop, in this checkout, with a home of its own."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        values = {"HOME": str(self.folder / "laptop" / "home"), "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
        settings = [f"{name}={value}" for name, value in (values | environment).items()]
        entered = self._enter(["env", "--ignore-environment", f"--chdir={ROOT}", "LANG=C.UTF-8", *settings, *command])
        return subprocess.Popen(entered, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *command: str, seconds: float = 120, **environment: str) -> tuple[int, str]:
        """Its status and what it printed; it is ended when it takes longer."""
        process = self.start(*command, **environment)
        try:
            printed, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end(process)
            raise
        return process.returncode, printed

    def ssh(self, number: int, command: str, seconds: float = 60) -> tuple[int, str]:
        """What a command comes to on a node: its status and what it printed."""
        options = ("-i", str(self.key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
        return self.run("ssh", "-q", *options, f"root@{self.address(number)}", command, seconds=seconds)

    def processes(self, number: int) -> list[str]:
        """The names of what runs on a node; Ray's workers call themselves after what they do."""
        return list(_descendants(self._nodes[number].pid).values())

    def _machine(self, network: list[str], *arguments: str) -> subprocess.Popen[bytes]:
        first = [*OWN, "--fork", "--kill-child", "--mount-proc", "bash", str(SCRIPT), *arguments]
        return subprocess.Popen([*network, *first])

    def _enter(self, command: list[str]) -> list[str]:
        first = next(iter(_descendants(self._laptop.pid)))
        return ["nsenter", f"--target={first}", "--net", *OWN, "--", *command]

    def _inside(self, command: list[str]) -> int:
        return subprocess.run(self._enter(command), capture_output=True).returncode


def _descendants(pid: int) -> dict[int, str]:
    """{number: command line} of everything below a process; those whose parent has ended belong to their first one.

    In full: readline, where it is loaded, sets COLUMNS, and ps cuts.
    """
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        below = {int(row[0]): row[-1] for row in rows if int(row[1]) in parents}
        found |= below
        parents = set(below)
    return found


def end(machine: subprocess.Popen[Any]) -> None:
    """Ends a process with everything below it, without warning."""
    for pid in _descendants(machine.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    machine.kill()
    machine.wait()
