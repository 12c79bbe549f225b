"""What can go wrong on real machines, each a class: how its run is made, what happens to it, and how that is mended."""

import errno
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess

from job import STEPS, Job
from PIL import Image

from ddpm.data.digits import digits

HERE = pathlib.Path(__file__).parent
AHEAD = 19  # steps that data are read ahead
TWO = ("--config.mesh.fsdp=2",)  # each process writes its own part of every large array


class Fault:
    """Something that happens once to a run, at a random moment."""

    def __init__(self, place: pathlib.Path, chance: random.Random):
        self.place, self.chance = place, chance

    def job(self) -> Job:
        """The run."""
        return Job(self.place, processes=2, flags=TWO)

    def peer(self, job: Job) -> tuple:
        """(name, folder -> run) of a run to which nothing happens, and which the run has to end like."""
        return "two", lambda place: Job(place, processes=2, flags=TWO)

    def happens(self, job: Job) -> list[subprocess.Popen] | None:
        """Makes it happen, while the run goes on; returns the processes that cannot end by themselves from then on."""
        raise NotImplementedError

    def mend(self) -> None:
        """What a user or a cluster does before the same command."""

    def end(self) -> None:
        """Leaves nothing behind."""


class preemption(Fault):
    """SIGTERM to any process"""

    def happens(self, job):
        self.chance.choice(job.processes).send_signal(signal.SIGTERM)


class killed(Fault):
    """SIGKILL to a process that is not the first"""

    def happens(self, job):
        job.processes[1].send_signal(signal.SIGKILL)


class coordinator(Fault):
    """SIGKILL to the first, which coordinates"""

    def happens(self, job):
        job.processes[0].send_signal(signal.SIGKILL)


class frozen(Fault):
    """a machine that stops (SIGSTOP to any process)"""

    def happens(self, job):
        stopped = self.chance.choice(job.processes)
        stopped.send_signal(signal.SIGSTOP)
        return [stopped]


class _Files(Fault):
    def job(self):
        job, self.moment = self.on_files(self.place), self.chance.randrange(1, STEPS[2][0] - AHEAD)
        self.file = self.chance.choice(job.folders) / "images" / f"{self.chance.randrange(96):02d}.png"
        return job

    def peer(self, job):
        return "files", self.on_files

    @staticmethod
    def on_files(place):
        """A run whose processes have a copy of the images each."""
        folders = tuple(place.with_name(f"{place.name}.{rank}") for rank in range(2))
        for folder in folders:
            (folder / "images").mkdir(parents=True)
            for i, pixels in enumerate(digits().images[:96]):
                Image.fromarray(pixels[..., 0]).save(folder / "images" / f"{i:02d}.png")
        data = ("name=folder", "resident_bytes=0", "folder.path=images", "folder.size=8", "folder.channels=1")
        flags = (*(f"--config.data.{option}" for option in data), "--config.training.hang_after=10")
        return Job(place, processes=2, flags=TWO + flags, folders=folders)

    def mend(self):
        self.file.unlink(missing_ok=True)
        self.file.with_suffix(".aside").rename(self.file)


class hanging_input(_Files):
    """a read of the data of one process that never returns (a FIFO), `training.hang_after=10`"""

    def happens(self, job):
        self.file.rename(self.file.with_suffix(".aside"))
        os.mkfifo(self.file)


class vanishing_file(_Files):
    """a file of the data of one process that vanishes"""

    def happens(self, job):
        self.file.rename(self.file.with_suffix(".aside"))


class _Alone(Fault):
    def job(self):
        return Job(self.place)

    def peer(self, job):
        return "one", Job


class full_disk(_Alone):
    """a disk that fills up (tmpfs of 64 MB)"""

    needs = "root" if os.geteuid() else None

    def job(self):
        job = Job(self.place)
        job.workdir.mkdir()
        self.disk = job.workdir
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", self.disk], check=True)
        return job

    def happens(self, job):
        with (self.disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass

    def mend(self):
        (self.disk / "filler").unlink()

    def end(self):
        subprocess.run(["umount", "--lazy", self.disk], check=True)


class _Shim(_Alone):
    needs = None if shutil.which("cc") else "a C compiler"
    below = "run"

    def job(self):
        self.file = self.place.with_suffix(".fault")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.says()
        library = self.place.with_suffix(".so")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "shim.c", "-ldl"], check=True)
        told = {"LD_PRELOAD": library, "FAULT_FILE": self.file, "FAULT_BELOW": self.place / self.below}
        return Job(self.place, environment={name: str(value) for name, value in told.items()})

    def says(self, error=0, slow_ms=0, clock_s=0):
        with self.file.open("r+b" if self.file.exists() else "wb") as file:  # the same file: it is mapped
            file.write(struct.pack("iiq", error, slow_ms, clock_s))

    def mend(self):
        self.says()


class read_only_disk(_Shim):
    """a workdir that becomes read-only (EROFS)"""

    def happens(self, job):
        self.says(error=errno.EROFS)


class throwing_store(_Shim):
    """a store of checkpoints that throws (EIO)"""

    below = "run/checkpoints"

    def happens(self, job):
        self.says(error=errno.EIO)


class slow_store(_Shim):
    """a store of checkpoints on which each call takes 30 ms"""

    below = "run/checkpoints"

    def happens(self, job):
        self.says(slow_ms=30)


class clock_jump(_Shim):
    """a clock that jumps, by up to ten years either way"""

    def happens(self, job):
        self.says(clock_s=self.chance.choice((-1, 1)) * int(10 ** self.chance.uniform(0, 8.5)))


class corrupted(Fault):
    """a byte of the newest of two checkpoints that flips, of one process's part, after a SIGKILL to both"""

    def job(self):
        num_steps, save_every = STEPS[2]
        self.moment = self.chance.randrange(2 * save_every + 1, num_steps - 5)
        return super().job()

    def happens(self, job):
        job.kill()
        steps = [int(path.name) for path in (job.workdir / "checkpoints").glob("*") if path.name.isdigit()]
        if not steps:
            return
        state = job.workdir / "checkpoints" / str(max(steps)) / "state" / f"ocdbt.process_{self.chance.randrange(2)}"
        file = self.chance.choice(sorted(path for path in state.rglob("*") if path.is_file()))
        data = bytearray(file.read_bytes())
        data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        file.write_bytes(data)


class _NaN(Fault):
    def job(self):
        self.moment, self.device = self.chance.randrange(1, STEPS[1][0] - 5), self.chance.randrange(2)
        return spoilt(self.place, self.about() | {"device": self.device})

    def peer(self, job):
        # What it skipped, and says so, this skips for NaN on both devices.
        skipped = job.skipped()
        return f"skips {skipped}", lambda place: spoilt(place, {"loss": skipped, "device": -1})

    def about(self):
        raise NotImplementedError

    def happens(self, job):
        job.command = spoilt_command({})  # the next time; this one does it by itself


class nan_once(_NaN):
    """NaN from one of two devices, in one step"""

    def about(self):
        return {"loss": [self.moment]}


class nan_in_memory(_NaN):
    """NaN in one device's copy of the parameters, `training.max_skipped=3`"""

    def about(self):
        return {"parameters": self.moment}


def spoilt(place: pathlib.Path, about: dict) -> Job:
    """A run of two devices with NaN, as nan.py is told."""
    return Job(place, devices=2, command=spoilt_command(about))


def spoilt_command(about: dict) -> tuple[str, str]:
    """What stands between `python` and the flags."""
    return str(HERE / "nan.py"), json.dumps(about)
