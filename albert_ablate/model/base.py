"""The type that all pretrained models share."""

from torch import nn

from albert_ablate.model.encoder import Encoder


class EncoderModel(nn.Module):
    """A model around one encoder, built by a method. Training, evaluation and fine-tuning use it."""

    encoder: Encoder
