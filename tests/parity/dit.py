"""DiT in PyTorch, written from the paper, with the names of weights of its own code.

Peebles and Xie 2023, section 3. Of their code there are only facts: the names, the order of a time's waves, tanh's GELU.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .openai import waves


def norm(h, shift, scale):
    return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, h):
        q, k, v = self.qkv(h).reshape(*h.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads, ratio):
        super().__init__()
        self.attn, self.mlp = Attention(width, heads), nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, int(ratio * width)), nn.Linear(int(ratio * width), width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, h, told):
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.adaLN_modulation(told).chunk(6, dim=1)
        h = h + gate_1[:, None] * self.attn(norm(h, shift_1, scale_1))
        wide = F.gelu(self.mlp.fc1(norm(h, shift_2, scale_2)), approximate="tanh")
        return h + gate_2[:, None] * self.mlp.fc2(wide)


class DiT(nn.Module):
    def __init__(self, *, size, patch, channels, outputs, width, depth, heads, classes, ratio=4.0):
        super().__init__()
        self.x_embedder, self.t_embedder, self.y_embedder = nn.Module(), nn.Module(), nn.Module()
        self.x_embedder.proj = nn.Conv2d(channels, width, patch, stride=patch)
        self.t_embedder.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.y_embedder.embedding_table = nn.Embedding(classes + 1, width)
        self.blocks = nn.ModuleList([Block(width, heads, ratio) for _ in range(depth)])
        self.final_layer = nn.Module()
        self.final_layer.linear = nn.Linear(width, patch**2 * outputs)
        self.final_layer.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.pos_embed = nn.Parameter(positions(size // patch, width)[None], requires_grad=False)
        self.patch, self.outputs = patch, outputs

    def forward(self, x, t, labels):
        told = self.t_embedder.mlp(waves(t, 256)) + self.y_embedder.embedding_table(labels)
        h = self.x_embedder.proj(x)
        rows, columns = h.shape[2:]
        h = h.flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            h = block(h, told)
        h = self.final_layer.linear(norm(h, *self.final_layer.adaLN_modulation(told).chunk(2, dim=1)))
        h = h.reshape(len(x), rows, columns, self.patch, self.patch, self.outputs)
        return torch.einsum("nhwpqc->nchpwq", h).reshape(len(x), self.outputs, rows * self.patch, columns * self.patch)


def positions(side, width):
    """Sines and cosines of the column, then of the row, of frequencies 10000^(-i / (width / 4)): [side * side, width]."""
    angles = torch.arange(side)[:, None] / 10_000 ** (torch.arange(width // 4) / (width // 4))
    place = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.cat([place.repeat(side, 1), place.repeat_interleave(side, dim=0)], dim=1)
