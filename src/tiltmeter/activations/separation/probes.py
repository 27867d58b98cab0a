"""Ways to find the direction from base to tuned activations: functions of both, of any length but zero."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

Probe: TypeAlias = Callable[[Float[Tensor, "N d"], Float[Tensor, "N d"]], Float[Tensor, " d"]]

_TOLERANCE = 1e-9  # of the gradient of the mean loss


def difference_in_means(base: Float[Tensor, "N d"], tuned: Float[Tensor, "N d"]) -> Float[Tensor, " d"]:
    """`v = mean(tuned) - mean(base)`. Source: the directions study."""
    return (tuned - base).mean(0)


def logistic_probe(base: Float[Tensor, "N d"], tuned: Float[Tensor, "N d"]) -> Float[Tensor, " d"]:
    """Weights w of the logistic regression of tuned against base: `min sum log(1 + exp(-y (w.x + b))) + ||w||^2 / 2`.

    The rows x are scaled by one factor, so that those about the mean have a mean square length of 1: otherwise the
    penalty would weigh less at blocks with larger activations.
    """
    rows = torch.cat([base, tuned])
    centred = rows - rows.mean(0)
    scaled = centred / centred.square().sum(1).mean().sqrt()
    labels = torch.arange(len(rows)) >= len(base)
    fitted = LogisticRegression(tol=_TOLERANCE, max_iter=10_000).fit(scaled.numpy(), labels.numpy())
    return torch.from_numpy(fitted.coef_[0])


def principal_component(base: Float[Tensor, "N d"], tuned: Float[Tensor, "N d"]) -> Float[Tensor, " d"]:
    """The first principal component of base and tuned activations together, its sign towards the tuned mean.

    It is found without labels: where it separates, base against tuned is the largest difference there is.
    """
    rows = torch.cat([base, tuned])
    centred = rows - rows.mean(0)
    if rows.shape[1] < len(rows):
        component: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    else:
        component = torch.linalg.eigh(centred @ centred.T).eigenvectors[:, -1] @ centred
    return component if component @ difference_in_means(base, tuned) >= 0 else -component
