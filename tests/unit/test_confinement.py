"""What the kernel really takes away, by the way of root and by that of everybody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")

SCRIPT = """
import os, socket, sys
from gate import confinement

if sys.argv[1] == "users":  # what is done for everybody but root, by whoever runs this
    said = confinement._tried(confinement.own_network_and_users)
    missing = [f"it has the network of this machine ({said})"] if said else []
    if not said:
        confinement.own_network_and_users()
else:
    missing = confinement.confine(network=sys.argv[1] == "network", device=sys.argv[2])
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
        probe.connect(("192.0.2.1", 9))
        print("network")
    except OSError:
        print("no network")
open("/proc/self/environ").close()  # still its own
print(os.getuid(), "NoNewPrivs:\\t1" in open("/proc/self/status").read(), *missing, sep="\\n")
"""
TWO_THREADS = "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"


def run(*arguments: str, script: str = SCRIPT) -> list[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("who", ["alone", "users"])
def test_the_network_goes_and_loopback_stays(who: str) -> None:
    network, user, privileges, *missing = run(who, "cpu")
    assert int(user) == os.getuid()
    assert privileges == str(who == "alone")
    problems = [line for line in missing if "it has the network of this machine" in line]
    if problems:
        pytest.skip(f"this machine does not allow it, and says so: {problems[0]}")
    assert network == "no network"


def test_it_stays_where_it_is_needed() -> None:
    assert not [line for line in run("network", "cpu")[3:] if "network" in line]


def test_what_is_not_possible_is_said_and_changes_nothing() -> None:
    _, user, _, *missing = run("alone", "cpu", script=TWO_THREADS + SCRIPT)
    assert int(user) == os.getuid()
    assert "it has the network of this machine (it has several threads already)" in "\n".join(missing)


@pytest.mark.skipif(Path("/dev/nvidia-uvm").exists(), reason="the driver is set up")
def test_a_driver_that_has_to_be_set_up_first_may_gain_privileges() -> None:
    _, _, privileges, *missing = run("alone", "cuda:0")
    assert privileges == "False"
    assert "not confined: it may gain privileges, because /dev/nvidia-uvm is not there yet" in missing
