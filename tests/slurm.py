"""A cluster of SLURM with two nodes on this machine, as long as a block lasts."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time

NEEDED = ("slurmctld", "slurmd", "sbatch", "srun")
CONF = """
ClusterName=tests
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
SlurmdParameters=config_overrides
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=60
NodeName=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
NodeName=127.0.0.2 Port={ports[2]} CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def is_here() -> bool:
    """Whether SLURM is installed, and this user may start it."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in NEEDED)


@contextlib.contextmanager
def cluster(place: pathlib.Path):
    """Gives a function that runs a command of SLURM there and returns what it prints."""
    with contextlib.ExitStack() as free:
        sockets = [free.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    place.chmod(0o755)
    (place / "state").mkdir()
    conf = place / "slurm.conf"
    conf.write_text(CONF.format(place=place, ports=ports))
    environment = os.environ | {"SLURM_CONF": str(conf)}
    commands = [["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", f"127.0.0.{n}"] for n in (1, 2))]
    quiet = dict(env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    daemons = []

    def asked(*command, check=True, **options):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False, **options
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    try:
        for command in commands:
            daemons.append(subprocess.Popen(command, **quiet))
            time.sleep(0.5)
        limit = time.monotonic() + 30
        while asked("sinfo", "--noheader", "--format=%T", "--states=idle", check=False).split() != ["idle"]:
            assert time.monotonic() < limit, (place / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)
        yield asked
    finally:
        asked("scancel", "--user=root", "--signal=KILL", "--full", check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(timeout=30)
