"""Class activation maps for any Paddle model: nine methods, guided backpropagation, faithfulness.

    from cxr.cam import GradCAM

    with GradCAM(model, "block.15") as cam:
        maps = cam(x)                       # (B, H, W) in [0, 1]

Start at `base.BaseCAM` for what a call does and at `methods` for the methods.
"""
from cxr.cam.guided import GuidedBackprop
from cxr.cam.layers import list_layers
from cxr.cam.methods import (
    CAM,
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from cxr.cam.transforms import pvt_tokens, swin_tokens, vit_tokens

METHODS = {
    "cam": CAM,
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "scorecam": ScoreCAM,
    "xgradcam": XGradCAM,
    "ablationcam": AblationCAM,
    "eigencam": EigenCAM,
    "eigengradcam": EigenGradCAM,
    "layercam": LayerCAM,
}

__all__ = [*(method.__name__ for method in METHODS.values()), "GuidedBackprop", "METHODS", "list_layers",
           "pvt_tokens", "swin_tokens", "vit_tokens"]
