"""A vision transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929), in small."""

import torch
from pipeline.models.tinyvit.params import Params
from torch import Tensor, nn

from pipeline.config.section import IMAGE_SIDE
from pipeline.models.common.layers import Normalize


class Network(nn.Module):
    """Tokens of patches and a class token through blocks of attention; the class token's features are scored."""

    def __init__(self, params: Params, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(params.width, classes)  # the first to be made, the last to run
        self.normalize = Normalize(mean, std)
        self.patch = params.patch
        self.embedding = nn.Linear(3 * params.patch**2, params.width)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, params.width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (IMAGE_SIDE // params.patch) ** 2 + 1, params.width))
        self.blocks = nn.Sequential(*(Block(params.width) for _ in range(params.depth)))
        self.norm = nn.LayerNorm(params.width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        patches = nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), self.embedding(patches)], 1)
        tokens = self.blocks(tokens + self.positions)
        logits: Tensor = self.head(self.norm(tokens[:, 0]))
        return logits


class Block(nn.Module):
    """Attention and two fully connected layers, each normalised before and added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads=2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm1(tokens)
        tokens = tokens + self.attention(x, x, x, need_weights=False)[0]
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out
