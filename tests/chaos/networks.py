"""Machines on one desk: network namespaces on a bridge, each with an address and a link to cut.

Needs root and iproute2. It lives in namespaces of its own; the host's network is not touched.
"""

import contextlib
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NETWORK = "10.231.47"


@dataclass(frozen=True)
class Machine:
    name: str
    namespace: str
    address: str

    def command(self, line: Sequence[str]) -> list[str]:
        """`line`, as run on this machine."""
        return ["ip", "netns", "exec", self.namespace, *line]

    def cut(self) -> None:
        """Nothing comes or goes any more; what was sent is tried again by TCP."""
        _run(self.command(["ip", "link", "set", "eth0", "down"]))

    def heal(self) -> None:
        _run(self.command(["ip", "link", "set", "eth0", "up"]))


def missing() -> str | None:
    """Why this machine cannot have namespaces; None where it can."""
    if shutil.which("ip") is None:
        return "no `ip` on PATH: apt-get install iproute2"
    name = f"fgt-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    _run(["ip", "netns", "del", name])
    return None


@contextlib.contextmanager
def machines(*names: str) -> Iterator[dict[str, Machine]]:
    """One per name, all on one bridge."""
    tag = f"fgt-{secrets.token_hex(3)}"
    hub = f"{tag}-hub"
    made = {
        name: Machine(name, f"{tag}-{name}", f"{NETWORK}.{i}") for i, name in enumerate(names, 1)
    }
    with contextlib.ExitStack() as stack:
        _add(stack, hub)
        _in(hub, "ip link add bridge type bridge")
        _in(hub, "ip link set bridge up")
        for i, machine in enumerate(made.values(), 1):
            _add(stack, machine.namespace)
            _in(hub, f"ip link add port{i} type veth peer name eth0 netns {machine.namespace}")
            _in(hub, f"ip link set port{i} master bridge up")
            _in(machine.namespace, "ip link set lo up")
            _in(machine.namespace, f"ip addr add {machine.address}/24 dev eth0")
            _in(machine.namespace, "ip link set eth0 up")
        yield made


def _add(stack: contextlib.ExitStack, namespace: str) -> None:
    _run(["ip", "netns", "add", namespace])
    stack.callback(_run, ["ip", "netns", "del", namespace])


def _in(namespace: str, line: str) -> None:
    _run(["ip", "netns", "exec", namespace, *line.split()])


def _run(line: list[str]) -> None:
    subprocess.run(line, check=True, capture_output=True, text=True)
