"""A convolution and the batch norm after it as one convolution, for inference."""

import numpy as np


def fold(
    weight: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    gamma: np.ndarray | float = 1.0,
    beta: np.ndarray | float = 0.0,
    epsilon: float = 1e-3,
) -> dict[str, np.ndarray]:
    """Kernel and bias of a Flax convolution: gamma (w * x - mean) / sqrt(variance + epsilon) + beta = kernel * x + bias.

    Computed in float64, rounded once.

    Args:
      weight: of PyTorch, [out, in, height, width]; the kernel is [height, width, in, out].
      mean: of the batch norm, as variance, gamma and beta: [out].
    """
    scale = gamma / np.sqrt(np.asarray(variance, np.float64) + epsilon)
    kernel = np.transpose(weight * scale[:, None, None, None], (2, 3, 1, 0))
    return {"kernel": kernel.astype(np.float32), "bias": (beta - mean * scale).astype(np.float32)}
