"""quantgate: decides whether a quantized checkpoint may replace its full-precision baseline."""

__version__ = "0.1.0"
