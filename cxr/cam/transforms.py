"""Ready `reshape_transform`s: what a transformer's layer returns -> (B, C, h, w).

Each is a plain function, to be passed as it is (`reshape_transform=vit_tokens`) or with a grid that is
not square (`partial(vit_tokens, height=12, width=16)`). They only move and drop values, as every
reshape_transform must: the toolbox applies them to gradients too, and runs them backwards to ablate.

PaddleClas's models, tried at 224 x 224 with paddleclas 2.6.0 (`pip install --no-deps paddleclas`,
`pip install requests six pyyaml`; the installed folder `paddleclas` on `sys.path`; classes from
`ppcls.arch.backbone`):

    ViT_small_patch16_224                      "blocks.7.norm1"             vit_tokens
    SwinTransformer_tiny_patch4_window7_224    "layers.3.blocks.1.norm1"    swin_tokens     (or "norm")
    PVT_V2_B0                                  "block4.1.norm1"             pvt_tokens      (or "norm4")
"""
from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

from cxr.errors import InputError

if TYPE_CHECKING:
    import paddle


def vit_tokens(tokens: paddle.Tensor, height: int | None = None, width: int | None = None,
               skip: int = 1) -> paddle.Tensor:
    """ViT, DeiT: (B, skip + h*w, C) -> (B, C, h, w), the first `skip` tokens dropped.

    Choose a layer before the last attention (`blocks.11.norm1`): after it, only the class token has any
    influence on the scores.

    Args:
        tokens: (B, skip + h*w, C).
        height: h, in tokens; None: from the width, or a square.
        width: w, in tokens; None: from the height, or a square.
        skip: 1 for a class token, 2 for a distilled DeiT.

    Returns:
        (B, C, h, w).

    Raises:
        InputError: the tokens have another number of axes, or do not fill the grid.
    """
    if len(tokens.shape) != 3:
        raise InputError(f"tokens must be (B, N, C), not {tuple(tokens.shape)}")
    return _to_grid(tokens[:, skip:], height, width)


def swin_tokens(tokens: paddle.Tensor, height: int | None = None, width: int | None = None) -> paddle.Tensor:
    """Swin: (B, h*w, C), or (B, h, w, C) as some versions keep it -> (B, C, h, w)."""
    if len(tokens.shape) == 4:
        return tokens.transpose([0, 3, 1, 2])
    return vit_tokens(tokens, height, width, skip=0)


def pvt_tokens(tokens: paddle.Tensor, height: int | None = None, width: int | None = None) -> paddle.Tensor:
    """PVT and PVTv2: (B, h*w, C), no class token -> (B, C, h, w)."""
    return vit_tokens(tokens, height, width, skip=0)


def _to_grid(tokens: paddle.Tensor, height: int | None, width: int | None) -> paddle.Tensor:
    batch, count, channels = tokens.shape
    if height is None and width is None:
        height = width = isqrt(count)
    elif height is None:
        height = count // width
    elif width is None:
        width = count // height
    if height * width != count:
        raise InputError(f"{count} tokens do not fill a grid of {height} x {width}; "
                         "give height and width, or skip the tokens that are no patches")
    return tokens.transpose([0, 2, 1]).reshape([batch, channels, height, width])
