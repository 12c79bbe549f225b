"""One small U-Net on Fashion-MNIST with each objective: `make objectives` trains them all and prints what they reach.

Paper:    those of the CIFAR-10 experiments, of which these are the small twins
Command:  python -m ddpm.main --config experiments/objectives.py:v --workdir runs/objectives/v
Data:     python -m ddpm.main --config experiments/objectives.py:v --mode prepare, once
Expected: the table of `make objectives` in the README
"""

from ml_collections import ConfigDict

from experiments import fashion

VP = {"process.name": "ContinuousVP", "log_snr.name": "cosine"}
FLOW = {"process.name": "RectifiedFlow", "prediction.name": "velocity", "weight.name": "output"}
VLB = {"loss.name": "vlb", "sampler.ancestral.variance": "learned"}
EDM = {"process.name": "EDM", "prediction.name": "edm", "weight.name": "edm", "timesteps.name": "log_normal"}
OBJECTIVES = {
    "simple": {},
    "linear": {"schedule.name": "linear"},
    "x0": {"prediction.name": "x0", "weight.name": "output"},
    "v": {"prediction.name": "v", "weight.name": "output"},
    "min_snr": {"prediction.name": "v", "weight.name": "min_snr"},
    "p2": {"weight.name": "p2"},
    "sigmoid": {"prediction.name": "v", "weight.name": "sigmoid"},
    "zero_snr": {"schedule.zero_terminal_snr": True, "prediction.name": "v", "weight.name": "output"},
    "hybrid": {"loss.name": "hybrid", "sampler.ancestral.variance": "learned"},
    "vlb": VLB,
    "vlb_importance": VLB | {"timesteps.name": "loss_second_moment", "timesteps.loss_second_moment.history": 4},
    "vp": {"process.name": "ContinuousVP"},
    "subvp": {"process.name": "SubVP"},
    "ve": {"process.name": "VE", "grid.name": "log_snr"},
    "vdm": {"process.name": "LearnedVP", "loss.name": "vdm", "timesteps.stratified": True},
    "flow": FLOW,
    "flow_logit_normal": FLOW | {"timesteps.name": "logit_normal"},
    "edm": EDM | {"grid.name": "karras"},
    "edm_uncertain": EDM | {"grid.name": "karras", "loss.name": "uncertain"},
}


def get_config(objective: str = "simple") -> ConfigDict:
    """The experiment of an objective."""
    if objective not in OBJECTIVES:
        raise ValueError(f"unknown objective {objective!r}; known: {', '.join(OBJECTIVES)}")
    config = fashion.get_config()
    config.data.flip = False
    config.model.unet.update(channels=16, dropout=0.0)
    config.optimizer.warmup_steps = 100
    config.training.update(
        batch_size=64, num_steps=400, log_every=20, sample_every=400, evaluate_every=0, save_every=200
    )
    config.sampler.update(name="ddim", num_steps=50)
    config.evaluation.update(num=1000, num_steps=50, reference="fashion_mnist:test", batch_size=32)
    config.evaluation.vlb_bpd.levels = 100
    config.evaluation.ode_bpd.update(rtol=1e-3, atol=1e-3)
    config.update_from_flattened_dict(OBJECTIVES[objective])
    return config
