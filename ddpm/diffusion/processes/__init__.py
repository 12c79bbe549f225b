"""Forward processes by name."""

from ddpm.diffusion.processes.fixed import EDM, VE, VP, ContinuousVP, RectifiedFlow, SubVP
from ddpm.diffusion.processes.learned import LearnedVP

__all__ = ["EDM", "VE", "VP", "ContinuousVP", "LearnedVP", "RectifiedFlow", "SubVP"]
