"""A run of the command that faults are injected into: one process or several on this machine."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from ddpm.distribution import TRIPLE
from ddpm.training import checkpoint, metrics

HERE = pathlib.Path(__file__).parent
REPO = HERE.parents[1]
STEPS = {1: (40, 8), 2: (24, 6)}  # of so many processes: of the run, and from a checkpoint to the next
FLAGS = (
    f"--config={REPO}/experiments/digits.py",
    "--config.model.unet.channels=32",
    "--config.model.unet.channel_mult=(1,)",
    "--config.model.unet.attention_resolutions=()",
    "--config.model.unet.num_res_blocks=1",
    "--config.training.batch_size=16",
    "--config.training.log_every=1",
    "--config.training.sample_every=0",
    "--config.training.evaluate_every=0",
    "--config.training.max_skipped=3",
)
PATIENCE = 120  # seconds after which a run that neither ends nor goes on is lost


class Lost(Exception):
    """A run that did not come back."""


class Job:
    """A run, to be started as often as it ends early.

    Args:
      place: a folder of its own; the workdir is in it.
      processes, devices: how many of them, and devices of each.
      command: what stands between `python` and the flags.
      flags: besides those of all.
      folders: where each process is started.
      environment: besides this process's.
    """

    def __init__(
        self,
        place: pathlib.Path,
        *,
        processes: int = 1,
        devices: int = 1,
        command: tuple = (str(HERE / "cached.py"),),
        flags: tuple = (),
        folders: tuple[pathlib.Path, ...] = (),
        environment: dict | None = None,
    ):
        self.place, self.workdir, self.command, self.flags = place, place / "run", command, flags
        self.folders = folders or (place,) * processes
        self.environment = (
            os.environ
            | {"PYTHONPATH": str(REPO), "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
            | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # the runs compile much and compute little
            | (environment or {})
        )
        self.num_steps, save_every = STEPS[processes]
        self.flags += (f"--config.training.num_steps={self.num_steps}", f"--config.training.save_every={save_every}")
        self.number, self.attempt, self.processes = processes, 0, []
        place.mkdir(parents=True)

    def start(self) -> None:
        """Starts all processes."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.attempt += 1
        self.processes = []
        for rank, folder in enumerate(self.folders):
            told = dict(zip(TRIPLE, (f"127.0.0.1:{port}", str(self.number), str(rank)), strict=True))
            words = [sys.executable, *self.command, *FLAGS, *self.flags, f"--workdir={self.workdir}"]
            with self._file(rank, "out").open("w") as out, self._file(rank, "err").open("w") as err:
                environment = self.environment | (told if self.number > 1 else {})
                self.processes.append(subprocess.Popen(words, cwd=folder, env=environment, stdout=out, stderr=err))

    def step(self) -> int:
        """The newest step in metrics.jsonl."""
        rows = metrics.read(self.workdir)
        return rows[-1]["step"] if rows else 0

    def reaches(self, step: int) -> None:
        """Waits until a step is done.

        Raises:
          Lost: the run ended before, or did not come so far.
        """
        limit = time.monotonic() + PATIENCE
        while self.step() < step:
            over = time.monotonic() > limit or all(process.poll() is not None for process in self.processes)
            if over and self.step() < step:
                raise Lost(f"step {self.step()}, not {step}: {self.said()}")
            time.sleep(0.005)

    def ends(self, cannot: Sequence[subprocess.Popen] = ()) -> list[int]:
        """Waits until all processes are gone, and ends those that cannot; their exit codes, as a shell would have them.

        Raises:
          Lost: one does not end.
        """
        limit = time.monotonic() + PATIENCE
        for process in sorted(self.processes, key=lambda process: process in cannot):
            if process in cannot:
                process.kill()
            try:
                process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                self.kill()
                raise Lost(f"a process does not end: {self.said()}") from error
        codes = [process.returncode for process in self.processes]
        return [code if code >= 0 else 128 - code for code in codes]

    def kill(self) -> None:
        """Ends all processes at once."""
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def said(self) -> str:
        """The first mistake that a process named, or else what JAX says, or the last line of the first process."""
        lines = [line for rank in range(self.number) for line in self._file(rank, "err").read_text().splitlines()]
        kinds = [
            [line for line in lines if re.search(said, line)]
            for said in ("has waited", "^error: ", "Terminating process", "Error: ")
        ]
        last = self._file(0, "out").read_text().splitlines()[-1:]
        found = (sum(kinds, []) or last or [""])[0]
        return re.sub(r"^[EF]\d{4} .*?\] ", "", found.replace(str(self.place), "DIR"))

    def resumes(self) -> int:
        """Waits until it goes on, when it was started again; the step it goes on from.

        Raises:
          Lost: it ended before, or does not.
        """
        limit = time.monotonic() + PATIENCE
        while not (found := re.search(r"(?:resumed|starts) at step (\d+) of", self._file(0, "out").read_text())):
            if time.monotonic() > limit or self.processes[0].poll() is not None:
                raise Lost(f"does not go on: {self.said()}")
            time.sleep(0.005)
        return int(found[1])

    def skipped(self) -> tuple[int, ...]:
        """Steps that were not finite."""
        return tuple(row["step"] for row in metrics.read(self.workdir) if row["skipped"])

    def sums(self) -> dict:
        """Checksums of all arrays after the last step, of which those of the EMA have been read anew."""
        directory = self.workdir / "checkpoints"
        checkpoint.read_ema_params(directory, self.num_steps)
        return checkpoint.read_record(directory, self.num_steps)["leaves"]

    def _file(self, rank: int, kind: str) -> pathlib.Path:
        return self.place / f"{rank}.{self.attempt}.{kind}"
