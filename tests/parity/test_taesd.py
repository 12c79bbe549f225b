"""TAESDs of diffusers and of the files that are published: the same latents and images from the same weights."""

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import nn

from ddpm import autoencoders


class Block(nn.Module):
    def __init__(self, channels, pooled):
        super().__init__()
        of = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(of[0], nn.ReLU(), of[1], nn.ReLU(), of[2])
        if pooled:
            wide, back = (
                nn.Conv2d(channels, 4 * channels, 1, bias=False),
                nn.Conv2d(4 * channels, channels, 1, bias=False),
            )
            self.pool = nn.Sequential(wide, nn.GroupNorm(4, 4 * channels), nn.ReLU(), back)

    def forward(self, x):
        x = x + self.pool(x) if hasattr(self, "pool") else x
        return torch.relu(x + self.conv(x))


class Bend(nn.Module):
    def forward(self, z):
        return 3 * torch.tanh(z / 3)


def published(latent_channels, channels, pooled):
    def conv(a=channels, b=channels, **options):
        return nn.Conv2d(a, b, 3, padding=1, **options)

    def three(pooled):
        return [Block(channels, pooled) for _ in range(3)]

    encoder = [conv(3), Block(channels, False)]
    decoder = [Bend(), conv(latent_channels), nn.ReLU()]
    for stage in range(3):
        encoder += [conv(stride=2, bias=False), *three(pooled and stage == 2)]
        decoder += [*three(pooled and stage == 0), nn.Upsample(scale_factor=2), conv(bias=False)]
    encoder, decoder = [*encoder, conv(b=latent_channels)], [*decoder, Block(channels, False), conv(b=3)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def nchw(x):
    return torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())


def nhwc(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


def compared(ours, encode, decode):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    z = np.random.default_rng(1).normal(0, 2, (2, 2, 3, ours.channels)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(ours.encode)(ours.params, x), nhwc(encode(nchw(x))), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(jax.jit(ours.decode)(ours.params, z), nhwc(decode(nchw(z))), atol=1e-4, rtol=1e-4)
    assert ours.factor == 8 and ours.scale is None


@pytest.mark.parametrize(
    ("latent_channels", "channels", "pooled", "end"),
    [(4, 64, False, "safetensors"), (16, 16, False, "pth"), (32, 64, True, "safetensors")],
    ids=["taesd", "taef1", "taef2"],
)
def test_files_as_they_are_published(latent_channels, channels, pooled, end, tmp_path):
    torch.manual_seed(0)
    encoder, decoder = published(latent_channels, channels, pooled)
    for side, network in (("encoder", encoder), ("decoder", decoder)):
        file = tmp_path / f"tae_{side}.{end}"
        (save_file if end == "safetensors" else torch.save)(network.state_dict(), file)
    ours = autoencoders.read(str(tmp_path))
    compared(ours, lambda x: encoder((x + 1) / 2), lambda z: 2 * decoder(z) - 1)


@pytest.mark.parametrize("latent_channels", [4, 16])
def test_folders_of_diffusers(latent_channels, tmp_path):
    torch.manual_seed(0)
    theirs = AutoencoderTiny(latent_channels=latent_channels).eval()
    theirs.save_pretrained(tmp_path)
    ours = autoencoders.read(str(tmp_path))
    compared(ours, lambda x: theirs.encode(x).latents, lambda z: theirs.decode(z).sample)
