"""What TensorBoard finds of a run, and a disk that takes no more of it."""

import resource
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ddpm.training.tensorboard_writer import TensorboardWriter


def events(directory):
    """The events of all files, the first written first."""
    found = []
    for file in sorted(directory.iterdir()):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_figures_and_pictures_are_on_disk_at_once_and_hide_what_an_interrupted_run_wrote_beyond(tmp_path):
    writer = TensorboardWriter(tmp_path / "tensorboard", 4)
    assert not (tmp_path / "tensorboard").exists()
    writer.scalars(5, {"loss": 0.5, "skipped": 1})
    writer.image(5, "samples", np.zeros((8, 6, 1), np.uint8))
    version, start, *rest = events(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, SessionLog.START)
    values = [(event.step, value.tag, value.simple_value) for event in rest for value in event.summary.value]
    assert values == [(5, "loss", 0.5), (5, "skipped", 1), (5, "samples", 0)]
    picture = rest[-1].summary.value[0].image
    assert (picture.height, picture.width) == (8, 6)
    writer.close()
    TensorboardWriter(tmp_path / "none", 0).close()


def test_a_full_disk_is_an_error_and_not_a_call_that_never_returns(tmp_path):
    writer, before = TensorboardWriter(tmp_path, 0), resource.getrlimit(resource.RLIMIT_FSIZE)
    writer.scalars(1, {"loss": 0.5})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError):
            for step in range(2, 100):
                writer.scalars(step, {"loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        writer.close()
