"""How far each layer moves its input (paper, section 3.1 and Figure 1).

The paper states neither its text nor its averaging. Here the model computes in evaluation mode and fp32. h_0 is the
embedding after the E -> H projection, h_l the output of layer l, before a norm that follows the last layer. Each token
that is not padding has an L2 distance ||h_l - h_(l-1)|| and an angle between h_l and h_(l-1) in degrees, computed in
float64 on the model's device, with the cosine clipped to [-1, 1]. The result is the mean over all tokens of a fixed
sample of held-out sequences without masks; every token has equal weight.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from albert_ablate.data.batches import Batch
from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.model.encoder import Encoder
from albert_ablate.record.similarity import Similarity, WithoutSpecial


@torch.inference_mode()
def layer_similarity(encoder: Encoder, batches: Iterable[Batch]) -> dict[str, Any]:
    """Per-layer means and standard deviations over tokens.

    Returns ``l2`` and ``degrees`` (L values each, layer 1 first), their standard deviations over
    tokens, the same without [CLS] and [SEP], and how many tokens and sequences were averaged.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    l2: list[np.ndarray] = []
    degrees: list[np.ndarray] = []
    special: list[np.ndarray] = []
    sequences = 0
    for batch in batches:
        ids = batch.input_ids.clone()
        ids.view(-1)[batch.positions] = batch.targets.to(ids.dtype)  # undo the masks
        states = encoder.hidden_states(
            ids.to(device), batch.type_ids.to(device), batch.mask.to(device), final_norm=False
        )
        pairs = [token_change(before, after) for before, after in pairwise(states)]
        real = batch.mask.numpy()
        l2.append(np.stack([distance[real] for distance, _ in pairs], axis=1))
        degrees.append(np.stack([angle[real] for _, angle in pairs], axis=1))
        special.append(np.isin(ids.numpy(), (CLS, SEP))[real])
        sequences += len(batch)
    distance, angle, marks = np.concatenate(l2), np.concatenate(degrees), np.concatenate(special)
    similarity = Similarity(
        l2=distance.mean(0).tolist(),
        degrees=angle.mean(0).tolist(),
        l2_sd=distance.std(0).tolist(),
        degrees_sd=angle.std(0).tolist(),
        without_special=WithoutSpecial(l2=distance[~marks].mean(0).tolist(), degrees=angle[~marks].mean(0).tolist()),
        tokens=len(distance),
        sequences=sequences,
    )
    return similarity.as_json()


def token_change(before: Tensor, after: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """L2 distances (B, T) and angles (B, T) in degrees between the states (B, T, H) before and after a layer.

    The sums over H are computed on the device of the states; only the (B, T) sums are copied to the host, together.
    """
    x, y = before.double(), after.double()
    change = y - x
    xx, yy, xy, squares = _summed(x * x, y * y, x * y, change * change)
    cosine = xy / np.maximum(np.sqrt(xx) * np.sqrt(yy), np.finfo(np.float64).tiny)
    return np.sqrt(squares), np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _summed(*values: Tensor) -> Sequence[np.ndarray]:
    """The sums over the last axis, on the host."""
    return _by_numpy(*values) if values[0].device.type == "cpu" else _by_torch(*values)


def _by_numpy(*values: Tensor) -> Sequence[np.ndarray]:
    """By numpy, whose order of summation the recorded numbers have."""
    return [np.asarray(value.numpy().sum(-1)) for value in values]


def _by_torch(*values: Tensor) -> Sequence[np.ndarray]:
    return list(torch.stack([value.sum(-1) for value in values]).cpu().numpy())
