# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""A Slurm cluster of one's own for a test: two nodes, which are this machine, and a controller; gone with the test.
Needs root and Debian's packages slurmctld, slurmd and slurm-client; nothing of an installed cluster is touched."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

CONF = """ClusterName=shardmesh
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8
PartitionName=all Nodes=ALL Default=YES State=UP
"""


class Missing(Exception):
    """There is no Slurm here that a test could start."""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        doors = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [door.getsockname()[1] for door in doors]


@contextlib.contextmanager
def cluster():
    """Gives the environment in which srun finds the cluster, while it runs."""
    host = socket.gethostname().split(".")[0]
    for name in ("slurmctld", "slurmd", "srun"):
        if not shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin"):
            raise Missing(f"no {name} here; apt-get install slurmctld slurmd slurm-client")
    if os.geteuid() != 0:
        raise Missing("Slurm's daemons want root")
    nodes = (host, host + "-2")  # ranks look for the first one by its name
    with tempfile.TemporaryDirectory() as folder:
        for name in ("state", *nodes):
            pathlib.Path(folder, name).mkdir()
        conf = pathlib.Path(folder, "slurm.conf")
        conf.write_text(CONF.format(host=host, folder=folder, nodes=nodes, ports=free_ports(3)))
        environment = os.environ | {"SLURM_CONF": str(conf), "PATH": os.environ.get("PATH", "") + ":/usr/sbin"}
        daemons = []
        try:
            for command in (["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", node] for node in nodes)):
                daemons.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            wait_for_nodes(environment, daemons)
            yield environment
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()


def wait_for_nodes(environment: dict[str, str], daemons: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 30
    while True:
        said = subprocess.run(["sinfo", "-h", "-N", "-o", "%t"], env=environment, text=True, capture_output=True).stdout.split()
        if said == ["idle", "idle"]:
            return
        if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in daemons):
            raise Missing(f"Slurm's daemons do not start here (nodes: {said})")
        time.sleep(0.3)
