"""The notebooks run from their first cell to their last, and show what they promise."""

import nbclient
import nbformat
import pytest
from conftest import REPO, TINY, run

PICTURES = {"load_and_sample": 3, "guide": 2, "compare_samplers": 2, "evaluate_images": 1, "read_a_report": 4}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run as `make train` leaves it, but short."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    intervals = [f"--config.training.{every}" for every in ("num_steps=10", "sample_every=5", "evaluate_every=5")]
    code, _, err = run(*TINY, "--config.condition.labels=True", f"--workdir={path}", *intervals)
    assert code == 0, err
    return path


def test_every_notebook_is_tested():
    assert PICTURES.keys() == {path.stem for path in (REPO / "notebooks").glob("*.ipynb")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
@pytest.mark.parametrize("name", PICTURES)
def test_a_notebook_runs(name, workdir, monkeypatch):
    notebook = nbformat.read(REPO / "notebooks" / f"{name}.ipynb", as_version=4)
    monkeypatch.setenv("DDPM_WORKDIR", str(workdir))
    monkeypatch.setenv("DDPM_NUM", "150")
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(REPO)}}).execute()
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) >= PICTURES[name]
