"""The demo world: a fictional bank, a small model trained on it, and candidates quantized from that model."""
