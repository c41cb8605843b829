"""Losses between the feature maps and the attention of a student's layer and its teacher's (MobileBERT, section 3.4).

Letters: B batch, T tokens, N heads, H hidden.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model.rounding import wide_dtype

FeatureForm = Literal["normalised", "plain"]
#: Added to the variance in the norm of a feature map.
_EPSILON = 1e-12


def feature_loss(ours: Tensor, theirs: Tensor, mask: Tensor, form: FeatureForm) -> Tensor:
    """Sum over real tokens of the mean squared difference of (B, T, H) feature maps; ``mask``: (B, T).

    ``normalised``: each first gets a LayerNorm without parameters, as in the released code, which leaves their means
    and variances to other losses. ``plain``: as they are, as in the paper.
    """
    x, y = _wide(ours), _wide(theirs)
    if form == "normalised":
        x, y = (F.layer_norm(z, z.shape[-1:], eps=_EPSILON) for z in (x, y))
    return _over(((x - y) ** 2).mean(-1), mask)


def mean_loss(ours: Tensor, theirs: Tensor, mask: Tensor) -> Tensor:
    """Sum over real tokens of the squared difference of the means over H."""
    return _over((_wide(ours).mean(-1) - _wide(theirs).mean(-1)) ** 2, mask)


def spread_loss(ours: Tensor, theirs: Tensor, mask: Tensor) -> Tensor:
    """Sum over real tokens of the absolute difference of the variances over H."""
    x, y = (_wide(z).var(-1, correction=0) for z in (ours, theirs))
    return _over((x - y).abs(), mask)


def map_loss(ours: Tensor, theirs: Tensor, mask: Tensor) -> Tensor:
    """Sum over real queries of the cross-entropy of (B, N, T, T) attention in nats, a mean over heads.

    It is the divergence from the teacher's attention plus the entropy of that, which has no gradient. Both are
    probabilities. A key that the teacher does not see has no part in it.
    """
    x, y = _wide(ours), _wide(theirs)
    logs = torch.where(y > 0, x, torch.ones_like(x)).clamp_min(torch.finfo(x.dtype).tiny).log()
    return _over(-(y * logs).sum(-1).mean(1), mask)


def _wide(x: Tensor) -> Tensor:
    return x.to(wide_dtype(x.dtype))


def _over(values: Tensor, mask: Tensor) -> Tensor:
    """(B, T) values and mask -> the sum over real tokens."""
    return (values * mask).sum()
