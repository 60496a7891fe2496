"""The vision transformer: patches of the image as tokens, blocks of self-attention, a linear layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.section import IMAGE_SIDE
from pipeline.models.common.layers import Normalize, initialize
from pipeline.models.vit.params import Params


class Network(nn.Module):
    """Tokens from a strided convolution and learned positions, pre-norm blocks, mean or class token, linear layer.

    After Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929); the mean of all tokens instead of a class token
    is that of Beyer et al. 2022 (https://arxiv.org/abs/2205.01580).
    """

    def __init__(self, params: Params, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        width, tokens = params.width, (IMAGE_SIDE // params.patch) ** 2
        self.normalize = Normalize(mean, std)
        self.embed = nn.Conv2d(3, width, params.patch, params.patch)
        self.positions = Positions(tokens, width)
        self.token = ClassToken(width) if params.pooling == "token" else nn.Identity()
        self.dropout = nn.Dropout(params.dropout)
        self.blocks = nn.Sequential(*(Block(params) for _ in range(params.depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        initialize(self, "xavier")

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.token(self.positions(x))
        x = self.norm(self.blocks(self.dropout(x)))
        logits: Tensor = self.head(x[:, 0] if isinstance(self.token, ClassToken) else x.mean(1))
        return logits


class Positions(nn.Module):
    """Add what is learned for each position: (N, tokens, width) to the same."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.values = nn.Parameter(0.02 * torch.randn(1, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.values


class ClassToken(nn.Module):
    """Put a learned token before the others: (N, tokens, width) to (N, tokens + 1, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.values.expand(x.shape[0], -1, -1), x], 1)


class Block(nn.Module):
    """Self-attention, then two fully connected layers, each added to its input: (N, tokens, width) to the same."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        width, hidden = params.width, params.mlp_ratio * params.width
        self.attention = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            SelfAttention(params.heads),
            nn.Linear(width, width),
            nn.Dropout(params.dropout),
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
            nn.Dropout(params.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        out: Tensor = x + self.mlp(x)
        return out


class SelfAttention(nn.Module):
    """Scaled dot-product attention: (N, tokens, 3 * width) queries, keys and values to (N, tokens, width)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = x.reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
