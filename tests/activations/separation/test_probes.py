"""Every probe against a public library."""

import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tiltmeter.activations.separation.probes import difference_in_means, logistic_probe, principal_component


def pairs(prompts: int, width: int) -> tuple[Tensor, Tensor]:
    base, tuned = torch.randn(2, prompts, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 5 * base, 5 * tuned + 2


def test_the_difference_in_means() -> None:
    base, tuned = pairs(9, 4)
    torch.testing.assert_close(difference_in_means(base, tuned), tuned.mean(0) - base.mean(0))


def test_the_logistic_probe_is_that_in_the_span_of_the_activations() -> None:
    """In orthonormal coordinates of the span, by Newton's method: the weights lie in it, whatever the width."""
    for prompts, width in ((30, 200), (30, 7)):
        base, tuned = pairs(prompts, width)
        rows = torch.cat([base, tuned]) - torch.cat([base, tuned]).mean(0)
        Q, R = torch.linalg.qr(rows.T)
        scaled = R.T / torch.linalg.norm(rows) * len(rows) ** 0.5
        labels = [0] * prompts + [1] * prompts
        fitted = LogisticRegression(solver="newton-cholesky", tol=1e-12).fit(scaled.numpy(), labels)
        expected = Q @ torch.from_numpy(fitted.coef_[0])
        torch.testing.assert_close(logistic_probe(base, tuned), expected, rtol=0, atol=1e-6 * float(expected.norm()))


def test_the_principal_component_points_from_base_to_tuned() -> None:
    for prompts, width in ((12, 40), (30, 6)):
        base, tuned = pairs(prompts, width)
        expected = torch.from_numpy(PCA(1).fit(torch.cat([base, tuned]).numpy()).components_[0])
        found = principal_component(base, tuned)
        torch.testing.assert_close((found / found.norm() @ expected).abs().item(), 1.0, rtol=0, atol=1e-10)
        assert found @ difference_in_means(base, tuned) > 0
        torch.testing.assert_close(principal_component(tuned, base), -found)
