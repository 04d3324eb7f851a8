"""A denoising UNet in PyTorch with the blocks and the names of diffusers' `UNet2DModel`."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu


def time_embedding(time: Tensor, size: int) -> Tensor:
    """Sines, then cosines, of the time at frequencies from 1 down to 1/10000."""
    angles = time[:, None] * torch.exp(-math.log(10000) / (size // 2) * torch.arange(size // 2))[None]
    return torch.cat([angles.sin(), angles.cos()], -1)


class TimeEmbedding(nn.Module):
    """Two dense layers."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(ins, outs)
        self.linear_2 = nn.Linear(outs, outs)

    def forward(self, x: Tensor) -> Tensor:
        """Activated once more, as every block does first."""
        return silu(self.linear_2(silu(self.linear_1(x))))


class Resnet(nn.Module):
    """Two convolutions, the time added in between."""

    def __init__(self, ins: int, outs: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, ins, eps=1e-6)
        self.conv1 = nn.Conv2d(ins, outs, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, outs)
        self.norm2 = nn.GroupNorm(groups, outs, eps=1e-6)
        self.conv2 = nn.Conv2d(outs, outs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(ins, outs, 1) if ins != outs else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Images of the same size."""
        y = self.conv1(silu(self.norm1(x))) + self.time_emb_proj(time)[:, :, None, None]
        y = self.conv2(silu(self.norm2(y)))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Self-attention over the positions, by heads of `head_dim` channels."""

    def __init__(self, width: int, groups: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.group_norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """Images of the same size."""
        y = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (
            part.unflatten(-1, (part.shape[-1] // self.head_dim, self.head_dim)).transpose(1, 2)
            for part in (self.to_q(y), self.to_k(y), self.to_v(y))
        )
        weights = (q @ k.transpose(2, 3) / math.sqrt(self.head_dim)).softmax(-1)
        y = self.to_out[0]((weights @ v).transpose(1, 2).flatten(2))
        return x + y.transpose(1, 2).reshape(x.shape)


class Resample(nn.Module):
    """A convolution of stride 2, or one behind nearest-neighbour upsampling."""

    def __init__(self, width: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(width, width, 3, 1 if up else 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images of half or twice the size."""
        return self.conv(interpolate(x, scale_factor=2.0) if self.up else x)


class Level(nn.Module):
    """Blocks of one resolution; its attributes have diffusers' names."""

    def __init__(self, sizes: list[tuple[int, int]], time: int, groups: int, head_dim: int, attends: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(a, b, time, groups) for a, b in sizes])
        if attends:
            self.attentions = nn.ModuleList([Attention(b, groups, head_dim) for _, b in sizes])

    def block(self, i: int, x: Tensor, time: Tensor) -> Tensor:
        """Block i and its attention."""
        x = self.resnets[i](x, time)
        return self.attentions[i](x) if hasattr(self, "attentions") else x


class Middle(nn.Module):
    """A block, attention, a block."""

    def __init__(self, width: int, time: int, groups: int, head_dim: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(width, width, time, groups) for _ in range(2)])
        self.attentions = nn.ModuleList([Attention(width, groups, head_dim)])

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Images of the same size."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x, time)), time)


class UNet(nn.Module):
    """Predicts the noise in images.

    Args:
      widths: of the levels; the defaults are those of the network for CIFAR-10 in "Denoising Diffusion Probabilistic
        Models" (Ho et al., NeurIPS 2020), 36 M params.
      attending: the levels with attention.
      blocks: of each level; one more on the way up.
      groups: of every group norm.
      head_dim: channels of an attention head.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (128, 256, 256, 256),
        attending: tuple[int, ...] = (1,),
        blocks: int = 2,
        groups: int = 32,
        head_dim: int = 32,
    ) -> None:
        super().__init__()
        self.width, time = widths[0], 4 * widths[0]
        self.time_embedding = TimeEmbedding(widths[0], time)
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for i, wide in enumerate(widths):
            sizes = [(width if j == 0 else wide, wide) for j in range(blocks)]
            level = Level(sizes, time, groups, head_dim, i in attending)
            skips += [wide] * blocks
            if i < len(widths) - 1:
                level.downsamplers = nn.ModuleList([Resample(wide, up=False)])
                skips.append(wide)
            self.down_blocks.append(level)
            width = wide
        self.mid_block = Middle(width, time, groups, head_dim)
        for i, wide in reversed(list(enumerate(widths))):
            sizes = []
            for _ in range(blocks + 1):
                sizes.append((width + skips.pop(), wide))
                width = wide
            level = Level(sizes, time, groups, head_dim, i in attending)
            if i > 0:
                level.upsamplers = nn.ModuleList([Resample(wide, up=True)])
            self.up_blocks.append(level)
        self.conv_norm_out = nn.GroupNorm(groups, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The noise in images `[batch, 3, height, width]` at times `[batch]`."""
        embedded = self.time_embedding(time_embedding(time, self.width))
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            for i in range(len(level.resnets)):
                x = level.block(i, x, embedded)
                skips.append(x)
            if hasattr(level, "downsamplers"):
                x = level.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block(x, embedded)
        for level in self.up_blocks:
            for i in range(len(level.resnets)):
                x = level.block(i, torch.cat([x, skips.pop()], 1), embedded)
            if hasattr(level, "upsamplers"):
                x = level.upsamplers[0](x)
        return self.conv_out(silu(self.conv_norm_out(x)))
