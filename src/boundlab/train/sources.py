"""Where a recipe's data come from: a folder that the user names, or the small digits that scikit-learn ships."""

from __future__ import annotations

import numpy as np
import torch

from boundlab.data.examples import Examples
from boundlab.errors import MissingPackage


def digits() -> Examples:
    """The 1797 handwritten digits of 8 x 8 pixels that scikit-learn ships, scaled to [0, 1] (Alpaydin and Kaynak 1998, UCI)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as problem:
        raise MissingPackage("the digits need scikit-learn: pip install 'boundlab[demo]'.") from problem
    held = load_digits()
    return Examples(torch.from_numpy(held.images.astype(np.float32)).unsqueeze(1) / 16,
                    torch.from_numpy(held.target.astype(np.int64)))


def permuted(examples: Examples, seed: int) -> Examples:
    """The examples in an order that `seed` fixes."""
    return examples.take(torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist())
