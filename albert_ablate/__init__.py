"""Controlled ablations of BERT-style encoders along ALBERT's three axes."""

__version__ = "0.1.0"
