"""Parity tests are skipped, with the reason, where torch or diffusers is absent."""

import pytest


def pytest_pycollect_makemodule():
    for name in ("torch", "diffusers"):
        pytest.importorskip(name, reason=f"parity needs {name}: pip install 'ddpm[parity]'")
