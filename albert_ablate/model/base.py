"""What every pretrained model is to the rest of the project."""

from torch import nn

from albert_ablate.model.encoder import Encoder


class EncoderModel(nn.Module):
    """A model around one encoder: what a method builds, trains, evaluates and hands on to fine-tuning."""

    encoder: Encoder
