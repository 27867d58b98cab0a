"""Is every number of a tensor finite? Asked of every tensor that is read, so it has to be cheap."""

import math

from torch import Tensor


def is_finite(tensor: Tensor) -> bool:
    """Neither NaN nor Inf. NaN shows in both extremes, and no mask of the tensor's size is made."""
    return not tensor.numel() or all(math.isfinite(extreme) for extreme in tensor.aminmax())
