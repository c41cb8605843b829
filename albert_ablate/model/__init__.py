"""The encoder: factorised embedding, shared blocks, heads. No training code."""
