"""The U-Net and the classifier of improved and guided diffusion in PyTorch, written from the papers, with their names of weights.

Ho et al. 2020, appendix B; Nichol and Dhariwal 2021, section 3; Dhariwal and Nichol 2021, section 3 and 4; Radford et al. 2021 (pool).
Of their code there are only facts: the names, 32 groups, the order of a time's waves, and the two orders of q, k, v.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def norm(channels):
    return nn.GroupNorm(32, channels, eps=1e-5)


def waves(t, channels):
    """Cosines, then sines, of frequencies 10000^(-i / half)."""
    half = channels // 2
    angles = t[:, None].float() * torch.exp(-math.log(10_000) * torch.arange(half) / half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Block(nn.Module):
    """A residual block; `resample` halves or doubles the image within."""

    def __init__(self, inputs, outputs, time, scale_shift, resample=None):
        super().__init__()
        self.in_layers = nn.Sequential(norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, outputs * (1 + scale_shift)))
        self.out_layers = nn.Sequential(
            norm(outputs), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.scale_shift = scale_shift
        self.resampled = {
            None: lambda x: x,
            "down": lambda x: F.avg_pool2d(x, 2),
            "up": lambda x: F.interpolate(x, scale_factor=2),
        }[resample]

    def forward(self, x, time):
        h = self.in_layers[2](self.resampled(self.in_layers[:2](x)))
        told = self.emb_layers(time)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
        else:
            h = self.out_layers[0](h + told)
        return self.skip_connection(self.resampled(x)) + self.out_layers[1:](h)


def attend(qkv, heads, legacy):
    """softmax(q k^T / sqrt(d)) v; with `legacy` the channels are q, k, v of each head in turn, else all q, all k, all v."""
    batch, channels, pixels = qkv.shape
    if legacy:
        q, k, v = qkv.reshape(batch, heads, 3, -1, pixels).unbind(2)
    else:
        q, k, v = qkv.reshape(batch, 3, heads, -1, pixels).unbind(1)
    weights = torch.einsum("bhdi,bhdj->bhij", q, k) / math.sqrt(q.shape[2])
    return torch.einsum("bhij,bhdj->bhdi", weights.softmax(-1), v).reshape(batch, channels // 3, pixels)


class Attention(nn.Module):
    def __init__(self, channels, heads, legacy):
        super().__init__()
        self.norm, self.heads, self.legacy = norm(channels), heads, legacy
        self.qkv, self.proj_out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x, time):
        h = x.flatten(2)
        return (h + self.proj_out(attend(self.qkv(self.norm(h)), self.heads, self.legacy))).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x, time):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, time):
        return self.conv(F.interpolate(x, scale_factor=2))


class Both(nn.Sequential):
    def forward(self, x, time):
        for layer in self:
            x = layer(x, time) if not isinstance(layer, nn.Conv2d) else layer(x)
        return x


class Pool(nn.Module):
    """One token, the mean of all, reads all; always in the order all q, all k, all v."""

    def __init__(self, pixels, channels, heads, outputs):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(channels, pixels + 1) / channels**0.5)
        self.qkv_proj, self.c_proj = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, outputs, 1)
        self.heads = heads

    def forward(self, x):
        x = x.flatten(2)
        x = torch.cat([x.mean(dim=2, keepdim=True), x], dim=2) + self.positional_embedding
        return self.c_proj(attend(self.qkv_proj(x), self.heads, False))[:, :, 0]


class Network(nn.Module):
    """The U-Net, or with `classes_said` the classifier of noised images.

    attention: levels that have it; head_channels: features a head, or else `heads` heads.
    """

    def __init__(
        self,
        *,
        size,
        channels,
        mult,
        blocks,
        attention,
        heads=1,
        head_channels=0,
        images=3,
        outputs=3,
        classes=0,
        scale_shift=True,
        updown=False,
        legacy=True,
        classes_said=0,
    ):
        super().__init__()
        time = 4 * channels
        self.channels = channels
        self.time_embed = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))
        if classes:
            self.label_emb = nn.Embedding(classes, time)

        def block(inputs, outputs, resample=None):
            return Block(inputs, outputs, time, scale_shift, resample)

        def attending(width):
            return Attention(width, width // head_channels if head_channels else heads, legacy)

        width = int(mult[0] * channels)
        self.input_blocks = nn.ModuleList([Both(nn.Conv2d(images, width, 3, padding=1))])
        skips = [width]
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                made = [block(width, int(factor * channels))]
                width = int(factor * channels)
                self.input_blocks.append(Both(*made, *([attending(width)] if level in attention else [])))
                skips.append(width)
            if level < len(mult) - 1:
                self.input_blocks.append(Both(block(width, width, "down") if updown else Down(width)))
                skips.append(width)
        self.middle_block = Both(block(width, width), attending(width), block(width, width))
        if classes_said:
            pixels = (size // 2 ** (len(mult) - 1)) ** 2
            pool = Pool(pixels, width, width // head_channels if head_channels else heads, classes_said)
            self.out = nn.Sequential(norm(width), nn.SiLU(), pool)
            return
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                made = [block(width + skips.pop(), int(factor * channels))]
                width = int(factor * channels)
                made += [attending(width)] if level in attention else []
                if level and i == blocks:
                    made.append(block(width, width, "up") if updown else Up(width))
                self.output_blocks.append(Both(*made))
        self.out = nn.Sequential(norm(width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, x, t, labels=None):
        time = self.time_embed(waves(t, self.channels))
        time = time if labels is None else time + self.label_emb(labels)
        hidden = []
        for layer in self.input_blocks:
            x = layer(x, time)
            hidden.append(x)
        x = self.middle_block(x, time)
        for layer in getattr(self, "output_blocks", ()):
            x = layer(torch.cat([x, hidden.pop()], dim=1), time)
        return self.out(x)
