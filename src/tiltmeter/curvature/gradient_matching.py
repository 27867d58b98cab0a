"""He et al.'s score of a candidate example: does its gradient point like those of harmful rather than safe data?"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.gradient_products import gradient_products
from tiltmeter.curvature.mean_gradient import weighted_gradient
from tiltmeter.tokens import Encoded
from tiltmeter.updates.update import Update

FIRST = 10


def matching_scores(candidates: Fisher, harmful: Fisher, safe: Fisher) -> Float[Tensor, " N"]:
    """`<g_z, mean harmful - mean safe>` in -2..2, every gradient scaled to norm 1 before the means are taken.

    Source: He et al., as told by collapse (arXiv 2602.15799); they take the first 10 tokens of each response, for
    which see `first_tokens`. Two passes over the anchors, one over the candidates.
    """
    return contrast_scores(candidates, [mean_direction(harmful) - mean_direction(safe)])[0]


def mean_direction(fisher: Fisher) -> Update:
    """`(1/N) sum_n g_n / ||g_n||`; a zero gradient has no direction and adds nothing."""
    return weighted_gradient(fisher, _inverse(gradient_products(fisher, []).norms) / len(fisher))


def contrast_scores(candidates: Fisher, contrasts: Sequence[Update]) -> Float[Tensor, "K N"]:
    """`<g_z / ||g_z||, V_k>` in one pass."""
    products = gradient_products(candidates, contrasts)
    return products.inner * _inverse(products.norms)


def first_tokens(fisher: Fisher, count: int = FIRST) -> Fisher:
    """The same Fisher on the first tokens of each completion alone; what comes after them is cut off."""
    return fisher.of([_head(example, count) for example in fisher.encoded])


def _head(example: Encoded, count: int) -> Encoded:
    places = [place for place, written in enumerate(example.is_completion) if written]
    end = places[:count][-1] + 1
    return Encoded(example.ids[:end], example.is_completion[:end])


def _inverse(norms: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    return torch.where(norms > 0, 1 / norms, 0.0)
