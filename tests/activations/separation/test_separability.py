"""Held-out figures and their null equal explicit loops, and hold what they say where there is nothing to find."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor

from tiltmeter.activations.separation.folds import assign_folds
from tiltmeter.activations.separation.held_out import Projections, cross_fitted_interval
from tiltmeter.activations.separation.probes import difference_in_means, logistic_probe, principal_component
from tiltmeter.activations.separation.separability import best_p, separability, separation
from tiltmeter.errors import InputError
from tiltmeter.intervals import mean_interval

# By the binomial distribution, fewer of 100 draws hold in one of a thousand such tests if 95 % do in truth.
FEWEST = int(stats.binom(100, 0.95).ppf(0.001))
PROBES = [difference_in_means, logistic_probe, principal_component]


def pairs(prompts: int, width: int, shift: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian activations, those of a prompt alike; the first coordinate is shifted."""
    generator = torch.Generator().manual_seed(seed)
    common, base, tuned = torch.randn(3, prompts, width, generator=generator, dtype=torch.float64)
    tuned[:, 0] += shift
    return base + common, tuned + common


def noise(prompts: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    base, tuned = torch.randn(2, prompts, width, generator=torch.Generator().manual_seed(seed))
    return base, tuned


def by_loops(base: Tensor, tuned: Tensor, folds: int) -> tuple[float, float, float]:
    """Cross-fitted balanced accuracy, AUROC and d', fold by fold."""
    fold = assign_folds(len(base), folds)
    scores, areas = np.zeros((2, len(base))), []
    for held_out in range(folds):
        train = [i for i in range(len(base)) if fold[i] != held_out]
        test = [i for i in range(len(base)) if fold[i] == held_out]
        means = [torch.stack([side[i] for i in train]).mean(0) for side in (base, tuned)]
        v = means[1] - means[0]
        for i in test:
            for row, side in enumerate((base, tuned)):
                scores[row, i] = float((side[i] - (means[0] + means[1]) / 2) @ v / v.norm())
        labels = [0] * len(test) + [1] * len(test)
        areas += [roc_auc_score(labels, np.concatenate(scores[:, test]))] * len(test)
    labels = [0] * len(base) + [1] * len(base)
    accuracy = balanced_accuracy_score(labels, scores.ravel() > 0)
    spread = math.sqrt((np.var(scores[0], ddof=1) + np.var(scores[1], ddof=1)) / 2)
    return accuracy, float(np.mean(areas)), (scores[1].mean() - scores[0].mean()) / spread


@pytest.mark.parametrize(("prompts", "width", "folds"), [(16, 5, 4), (17, 40, 5), (6, 3, 6)])
def test_figures_are_those_of_explicit_loops(prompts: int, width: int, folds: int) -> None:
    base, tuned = pairs(prompts, width, 2)
    found = separability(base, tuned, folds, permutations=19)
    accuracy, auroc, d_prime = by_loops(base, tuned, folds)
    v = tuned.mean(0) - base.mean(0)
    inside = torch.cat([base, tuned]) @ v > (base.mean(0) + tuned.mean(0)) @ v / 2

    assert found.norm == pytest.approx(float(v.norm()))
    assert found.in_sample == balanced_accuracy_score([0] * prompts + [1] * prompts, inside.numpy())
    assert found.held_out.mean == pytest.approx(accuracy, abs=1e-12)
    assert found.auroc.mean == pytest.approx(auroc, abs=1e-12)
    assert found.d_prime == pytest.approx(d_prime, abs=1e-12)
    assert separation(base, tuned, difference_in_means, folds).held_out == found.held_out


@pytest.mark.parametrize(("prompts", "width"), [(16, 5), (13, 40)])
def test_p_counts_explicit_swaps_within_pairs(prompts: int, width: int) -> None:
    base, tuned = pairs(prompts, width, 0.5)
    signs = np.random.default_rng((0, 1)).choice([-1.0, 1.0], size=(20, prompts))[1:]
    _, observed, _ = by_loops(base, tuned, 5)
    swapped = []
    for row in signs:
        stay = torch.from_numpy(row > 0)[:, None]
        swapped.append(by_loops(torch.where(stay, base, tuned), torch.where(stay, tuned, base), 5)[1])
    expected = (1 + sum(area >= observed - 1e-12 for area in swapped)) / 20

    assert 1 / 20 < expected < 1
    assert separability(base, tuned, permutations=19).p == pytest.approx(expected, abs=1e-12)


def test_the_best_of_several_blocks_is_compared_with_the_best_under_the_same_swaps() -> None:
    found = [separability(*pairs(30, 40, shift, seed), permutations=99) for seed, shift in enumerate((0, 1, 0))]
    largest = [max(null) for null in zip(*(each.null for each in found), strict=True)]
    assert found[1].null[0] == pytest.approx(found[1].auroc.mean)
    assert best_p(found) == sum(value >= largest[0] for value in largest) / 100
    assert best_p(found) >= min(each.p for each in found)
    assert best_p(found[:1]) == found[0].p


def test_the_best_of_many_blocks_of_noise_is_seldom_called_more_than_chance() -> None:
    by_chance = [
        best_p([separability(*pairs(12, 20, 0, 100 * draw + block), permutations=19) for block in range(6)])
        for draw in range(60)
    ]
    assert sum(p <= 0.05 for p in by_chance) <= stats.binom(60, 0.05).ppf(0.999)


@pytest.mark.parametrize("probe", PROBES)
def test_units_rotation_and_origin_do_not_matter(probe) -> None:  # type: ignore[no-untyped-def]
    base, tuned = pairs(20, 30, 3)
    turn = torch.linalg.qr(torch.randn(30, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    moved = [1000 * side @ turn + 7 for side in (base, tuned)]
    found, again = separation(base, tuned, probe), separation(moved[0], moved[1], probe)

    assert again.d_prime == pytest.approx(found.d_prime, rel=1e-6)
    assert again.held_out == found.held_out
    assert again.auroc == found.auroc


def test_the_two_models_can_change_places() -> None:
    base, tuned = pairs(30, 50, 2)
    one, other = separability(base, tuned), separability(tuned, base)
    assert other.held_out == one.held_out
    assert other.d_prime == pytest.approx(one.d_prime)
    assert other.norm == pytest.approx(one.norm)
    assert other.p == one.p


@pytest.mark.parametrize("probe", PROBES)
def test_a_planted_direction_separates_as_far_as_it_can(probe) -> None:  # type: ignore[no-untyped-def]
    """Unit noise, two classes at a distance of d': accuracy Phi(d'/2), AUROC Phi(d'/sqrt 2)."""
    d_prime, prompts = 3.0, 1000
    base, tuned = noise(prompts, 4, 0)
    tuned[:, 2] += d_prime
    found = separation(base, tuned, probe)
    accuracy, auroc = (float(stats.norm.cdf(d_prime / root)) for root in (2, math.sqrt(2)))

    assert found.held_out.mean == pytest.approx(accuracy, abs=0.015)
    assert found.held_out.low < accuracy < found.held_out.high
    assert found.auroc.low < auroc < found.auroc.high
    assert found.d_prime == pytest.approx(d_prime, abs=0.15)


def test_in_noise_only_the_in_sample_figure_sees_something() -> None:
    """At width 2048 with 100 prompts; the seeds are those of the benchmark."""
    found = [separability(*noise(100, 2048, seed), permutations=99, seed=seed) for seed in range(100)]

    assert min(each.in_sample for each in found) > 0.95
    assert sum(each.held_out.low <= 0.5 <= each.held_out.high for each in found) >= 95
    assert sum(each.auroc.low <= 0.5 <= each.auroc.high for each in found) >= FEWEST
    assert np.mean([each.held_out.mean for each in found]) == pytest.approx(0.5, abs=0.02)
    p = [each.p for each in found]
    assert sum(value > 0.05 for value in p) >= FEWEST
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_d_prime_is_infinite_where_only_the_means_differ() -> None:
    found = Projections(np.full(4, 1.0), np.full(4, -1.0), np.arange(4))
    assert found.d_prime() == -math.inf
    assert found.accuracy().mean == found.auroc().mean == 0


def test_where_nothing_varies_the_interval_is_exact_for_half_as_many_prompts() -> None:
    size = 10 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 19)) ** 2
    found = cross_fitted_interval(np.ones(20))
    assert (found.mean, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025 ** (1 / size))


def test_the_interval_is_the_exact_binomial_one_at_half_the_size() -> None:
    values = np.repeat([0.0, 1.0], [1400, 600])
    found = cross_fitted_interval(values)
    exact = stats.binomtest(300, 1000).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=2e-4)
    assert found.high - found.low > 1.3 * (mean_interval(values).high - mean_interval(values).low)


def test_no_difference_is_an_error_and_never_a_half() -> None:
    base, tuned = pairs(10, 4, 1)
    with pytest.raises(InputError, match=r"^block 3: the adapter did nothing: .* over all 10 prompts$"):
        separability(base, base.clone(), name="block 3")
    only = base.clone()
    only[4] = tuned[4]
    with pytest.raises(InputError, match=r"^activations, without fold \d: the direction is zero"):
        separability(base, only)
    with pytest.raises(InputError, match="the adapter did nothing"):
        separation(base, base.clone(), principal_component)


def test_what_cannot_be_measured_is_named() -> None:
    base, tuned = pairs(10, 4, 1)
    with pytest.raises(InputError, match="a prompt in each; got 5 and 4 prompts"):
        separability(base[:4], tuned[:4])
    with pytest.raises(InputError, match="got 1 and 10 prompts"):
        separability(base, tuned, folds=1)
    with pytest.raises(InputError, match=r"base is \(10, 4\), tuned \(9, 4\)"):
        separability(base, tuned[:9])
    tuned[6, 2] = math.nan
    with pytest.raises(InputError, match="the tuned activations of prompt 7 are not finite"):
        separability(base, tuned)
