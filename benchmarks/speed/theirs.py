"""The same step and DDIM with the U-Nets of others, in PyTorch."""

import importlib
import os
import pathlib
import sys
import unittest.mock

import numpy as np
import torch
import torch.nn.attention
import torch.utils.flop_counter
from networks import CLIP, DECAY, DROPOUT, IMAGES, NETWORKS, RATE, fastest


def diffusers(options: dict, size: int, channels: int, dropout: float = DROPOUT) -> torch.nn.Module:
    """`UNet2DModel`, with as many parameters as ours; https://github.com/huggingface/diffusers."""
    from diffusers import UNet2DModel

    width, mults = options["channels"], options["channel_mult"]
    attends = [size // 2**level in options["attention_resolutions"] for level in range(len(mults))]
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=[width * mult for mult in mults],
        down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        layers_per_block=options.get("num_res_blocks", 2),
        attention_head_dim=options.get("head_channels"),
        norm_num_groups=options.get("norm_groups", 32),
        resnet_time_scale_shift="scale_shift" if options.get("scale_shift") else "default",
        dropout=dropout,
        downsample_padding=0,
    )


def guided_diffusion(options: dict, size: int, channels: int) -> torch.nn.Module:
    """https://github.com/openai/guided-diffusion, which is at the path GUIDED_DIFFUSION."""
    unet = _of_path("GUIDED_DIFFUSION", "guided_diffusion.unet")
    return unet.UNetModel(
        size,
        channels,
        options["channels"],
        channels,
        options.get("num_res_blocks", 2),
        tuple(size // height for height in options["attention_resolutions"]),
        DROPOUT,
        options["channel_mult"],
        num_head_channels=options.get("head_channels", -1),
        use_scale_shift_norm=options.get("scale_shift", False),
    )


def edm(options: dict, size: int, channels: int) -> torch.nn.Module:
    """DDPM++ of https://github.com/NVlabs/edm, which is at the path EDM, with our number of blocks."""
    networks = _of_path("EDM", "training.networks")
    network = networks.SongUNet(
        size,
        channels,
        channels,
        model_channels=options["channels"],
        channel_mult=list(options["channel_mult"]),
        num_blocks=options.get("num_res_blocks", 2),
        attn_resolutions=list(options["attention_resolutions"]),
        dropout=DROPOUT,
    )
    return _Called(network, lambda network, x, t: network(x, t, None))


def denoising_diffusion_pytorch(options: dict, size: int, channels: int) -> torch.nn.Module:
    """https://github.com/lucidrains/denoising-diffusion-pytorch: another U-Net, of the same width and depth."""
    for imported in (
        "torchvision",
        "accelerate",
        "ema_pytorch",
    ):  # by its trainer, which is not used; torchvision would replace torch
        sys.modules[imported] = unittest.mock.MagicMock()
    from denoising_diffusion_pytorch import Unet

    mults = options["channel_mult"]
    attends = tuple(size // 2**level in options["attention_resolutions"] for level in range(len(mults)))
    return Unet(options["channels"], dim_mults=mults, channels=channels, dropout=DROPOUT, full_attn=attends)


class _Called(torch.nn.Module):
    def __init__(self, network, call):
        super().__init__()
        self.network, self._call = network, call

    def forward(self, x, t):
        return self._call(self.network, x, t)


def _of_path(variable, module):
    sys.path.insert(0, str(pathlib.Path(os.environ[variable]).resolve()))
    return importlib.import_module(module)


PEERS = {  # name: network, whether its memory is channels-last, whether it is compiled
    "diffusers": (diffusers, False, False),
    "diffusers_channels_last": (diffusers, True, False),
    "diffusers_compiled": (diffusers, True, True),
    "guided_diffusion": (guided_diffusion, True, False),
    "edm": (edm, True, False),
    "denoising_diffusion_pytorch": (denoising_diffusion_pytorch, True, False),
}


class Theirs:
    """What `worker.py` asks for; see there."""

    def __init__(self, peer: str, network: str, batch: int, dtype: str):
        made, self._channels_last, compiled = PEERS[peer]
        options, self._size, self._channels = NETWORKS[network]
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # as convolutions of both, and products of ours, on an accelerator
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network = made(options, self._size, self._channels).to(self._device)
        if self._channels_last:
            self._network = self._network.to(memory_format=torch.channels_last)
        self._forward = torch.compile(self._network, dynamic=False) if compiled else self._network
        self._batch, self._autocast = batch, dtype == "bfloat16"
        self._weights = list(self._network.parameters())
        self._average = [weight.detach().clone() for weight in self._weights]
        self._optimizer = torch.optim.Adam(self._weights, RATE, fused=True)
        self._alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, device=self._device), 0)
        images = np.random.default_rng(0).integers(0, 256, (IMAGES, self._channels, self._size, self._size), np.uint8)
        self._data = torch.from_numpy(images).to(self._device)

    def train(self, steps: int) -> int:
        self._network.train()
        for _ in range(steps):
            self._step()
        self._wait()
        return steps

    def _step(self):
        x_0 = self._data[torch.randint(len(self._data), (self._batch,), device=self._device)].float() / 127.5 - 1
        t = torch.randint(1000, (self._batch,), device=self._device)
        eps, share = torch.randn_like(x_0), self._alpha_bar[t][:, None, None, None]
        loss = (self._said(share.sqrt() * x_0 + (1 - share).sqrt() * eps, t) - eps).square().mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, CLIP)
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._average, self._weights, 1 - DECAY)

    def _said(self, x_t, t):
        if self._channels_last:
            x_t = x_t.to(memory_format=torch.channels_last)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._autocast):
            said = self._forward(x_t, t)
        return getattr(said, "sample", said).float()

    @torch.inference_mode()
    def sample(self, batch: int, steps: int) -> None:
        """DDIM, with x0_hat clipped."""
        self._network.eval()
        x = torch.randn(batch, self._channels, self._size, self._size, device=self._device)
        times = torch.arange(1000 - 1000 // steps, -1, -(1000 // steps)).tolist()
        for t, s in zip(times, [*times[1:], None], strict=True):
            share, next_share = self._alpha_bar[t], torch.ones(()) if s is None else self._alpha_bar[s]
            eps = self._said(x, torch.full((batch,), t, device=self._device))
            x_0 = ((x - (1 - share).sqrt() * eps) / share.sqrt()).clamp(-1, 1)
            x = next_share.sqrt() * x_0 + (1 - next_share).sqrt() * (x - share.sqrt() * x_0) / (1 - share).sqrt()
        ((x + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()

    def facts(self) -> dict:
        """Parameters; operations of an evaluation of an image, and of a step, which is three times that."""
        x = torch.zeros(1, self._channels, self._size, self._size, device=self._device)
        counter = torch.utils.flop_counter.FlopCounterMode(display=False)
        seen = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)  # a CPU's fused one is not counted
        with torch.no_grad(), seen, counter as counted:
            self._network(x, torch.zeros(1, dtype=torch.long, device=self._device))
        evaluation = counted.get_total_flops()
        operations = {"train": 3 * evaluation, "sample": evaluation}
        return {"parameters": sum(weight.numel() for weight in self._weights), "operations": operations}

    def matmul(self) -> float:
        """Operations a second of a large product of matrices."""
        side = 8192 if self._device == "cuda" else 512 if self._autocast else 2048  # CPUs without bfloat16 take seconds
        a = torch.randn(side, side, device=self._device, dtype=torch.bfloat16 if self._autocast else torch.float32)

        def product():
            a @ a
            self._wait()

        return 2 * side**3 / fastest(product)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self._device == "cuda" else 0

    def _wait(self):
        if self._device == "cuda":
            torch.cuda.synchronize()
