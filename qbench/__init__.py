"""qbench: a reproducibility benchmark suite for neural-network quantization."""

__version__ = "0.1.0"
