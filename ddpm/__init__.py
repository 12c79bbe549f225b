"""Diffusion models in JAX. `ddpm.load(workdir)` opens a trained run."""

from ddpm.run import Run, load

__all__ = ["Run", "load"]
