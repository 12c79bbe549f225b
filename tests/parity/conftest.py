"""Parity tests are skipped, with the reason, where torch or diffusers is absent."""

import sys
import types

import pytest


def pytest_pycollect_makemodule():
    for name in ("torch", "diffusers"):
        pytest.importorskip(name, reason=f"parity needs {name}: pip install 'ddpm[parity]'")


class Stub(types.ModuleType):
    """A module in which any name is an empty class: for imports of what is not called here."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (), {})


@pytest.fixture(scope="module")
def theirs():
    """Imports a module of theirs without torchvision, which would replace PyTorch's small build by a large one."""
    before = set(sys.modules)
    names = ["torchvision", *(f"torchvision.{name}" for name in ("datasets", "models", "transforms"))]
    for name in [*names, "torchvision.transforms.functional", "pytorch_fid.inception"]:
        sys.modules.setdefault(name, Stub(name))
    sys.modules["pytorch_fid.inception"].InceptionV3 = types.SimpleNamespace(BLOCK_INDEX_BY_DIM={2048: 3})
    yield lambda name: pytest.importorskip(name, reason=f"parity needs {name}: make parity")
    for name in set(sys.modules) - before:
        if name.startswith(("torch_fidelity", "pytorch_fid", "torchvision")):
            del sys.modules[name]
