"""A stitching map: what it reaches where the truth is known, what it may not do, and what it leaves behind."""

from collections.abc import Callable
from functools import cache, cached_property

import pytest
import torch
from torch import Tensor

import tiny
from paired_activations import rotation
from tiltmeter.activations.capture import capture, prompts_only
from tiltmeter.activations.hook_points import chosen_blocks
from tiltmeter.activations.maps import stitching
from tiltmeter.activations.maps.linear_map import LinearMap
from tiltmeter.activations.maps.ridge import fit_ridge
from tiltmeter.activations.maps.seam import Seam
from tiltmeter.activations.maps.stitching import StitchFit, fit_stitch
from tiltmeter.activations.steering import shift, steered
from tiltmeter.errors import InputError
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prompts(count: int, seed: int = 0) -> list[str]:
    """Two to eight random words each."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (count,), generator=generator).tolist()
    return [
        " ".join(tiny.WORDS[int(i)] for i in torch.randint(len(tiny.WORDS), (n,), generator=generator)) for n in lengths
    ]


class Pair:
    """A target, and another model's states on the same prompts; and of both on fresh ones."""

    def __init__(self, dtype: torch.dtype = torch.float32, count: int = 80, family: str = "llama") -> None:
        self.target, source = tiny.model(family, dtype), tiny.model("qwen3", seed=3)
        self.block = chosen_blocks(self.target)[-1]
        self.texts, self.fresh = (prompts_only(self.target, prompts(n, seed)) for n, seed in ((count, 0), (60, 9)))
        self.own, self.own_fresh = (states(self.target, texts, self.block) for texts in (self.texts, self.fresh))
        self.source, self.source_fresh = (
            states(source, texts, chosen_blocks(source)[-1]) for texts in (self.texts, self.fresh)
        )

    def fit(
        self, source: Tensor | None = None, steps: int = 40, learning_rate: float = 0.01, seed: int = 0
    ) -> StitchFit:
        source = self.source if source is None else source
        return fit_stitch(self.target, self.texts, self.block, source, self.own, steps, learning_rate, seed=seed)

    def kl(self, map: LinearMap, source: Tensor) -> Tensor:
        """On the fresh prompts."""
        with torch.no_grad():
            return self.seam.kl(map(source))

    @cached_property
    def seam(self) -> Seam:
        return Seam(self.target, self.fresh, self.block)


def states(model: Model, texts: list[Encoded], block: str) -> Tensor:
    return capture(model, texts, [block]).per_prompt(block)


@cache
def pair() -> Pair:
    return Pair()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_source_that_is_an_affine_image_answers_as_the_target(family: str) -> None:
    given = Pair(family=family)
    A, b = normal(20, 16), 5 * normal(20, seed=1)
    found = given.fit(given.own @ A.T + b, steps=10)
    assert given.kl(found.map, given.own_fresh @ A.T + b).max() < 1e-5
    ids = torch.tensor([given.fresh[0].ids])
    plain = given.target.module(input_ids=ids).logits[0, -1].detach()
    state = found.map(given.own_fresh[:1] @ A.T + b) - given.own_fresh[:1]
    with steered(given.target, {given.block: shift(state[0], 1.0)}):
        stitched = given.target.module(input_ids=ids).logits[0, -1].detach()
    torch.testing.assert_close(stitched, plain, rtol=0, atol=2e-3 * float(plain.std()))


def test_training_lowers_the_divergence_on_fresh_prompts_where_the_ridge_map_misses() -> None:
    given = pair()
    found = given.fit()
    gain = given.kl(found.start, given.source_fresh) - given.kl(found.map, given.source_fresh)
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5
    assert gain.mean() > 0.05


def test_losses_are_those_of_both_maps_on_prompts_that_are_split() -> None:
    given = pair()
    found, seam = given.fit(), Seam(given.target, given.texts, given.block)
    train = [row for row in range(80) if row not in found.held_out]
    assert len(found.held_out) == 16
    assert torch.equal(found.start.matrix, fit_ridge(given.source[train], given.own[train]).map.matrix)
    with torch.no_grad():
        before, after = (seam.kl(each(given.source)) for each in (found.start, found.map))
    losses = found.losses
    for loss, kl, rows in (
        (losses.train_before, before, train),
        (losses.train_after, after, train),
        (losses.held_out_before, before, list(found.held_out)),
        (losses.held_out_after, after, list(found.held_out)),
    ):
        assert loss == pytest.approx(float(kl[rows].mean()), rel=1e-4)
    assert found.kl == losses.held_out_after < losses.held_out_before
    assert losses.train_after < losses.train_before


@pytest.mark.parametrize("learning_rate", [1e-4, 0.1, 3.0, 1e6])
def test_never_worse_than_the_ridge_map(learning_rate: float) -> None:
    found = pair().fit(steps=10, learning_rate=learning_rate)
    assert found.losses.train_after <= found.losses.train_before
    assert found.losses.held_out_after <= found.losses.held_out_before
    if learning_rate >= 3:
        assert found.steps == 0
        assert torch.equal(found.map.matrix, found.start.matrix)
        assert torch.equal(found.map.target_mean, found.start.target_mean)
    else:
        assert found.steps > 0


@pytest.mark.parametrize("seed", [1, 4, 8])
def test_a_map_that_gains_on_held_out_prompts_alone_is_not_kept(seed: int) -> None:
    """Two held-out prompts, and steps so long that these seeds would have gained by chance."""
    losses = Pair(count=10).fit(steps=4, learning_rate=2.0, seed=seed).losses
    assert losses.train_after <= losses.train_before
    assert losses.held_out_after <= losses.held_out_before


def test_the_best_map_on_the_way_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Pair(count=20)
    found = given.fit(steps=8, learning_rate=0.05)
    monkeypatch.setattr(stitching, "CHECKS", 1)  # of the last step only
    each = [given.fit(steps=steps, learning_rate=0.05) for steps in range(1, 8)]
    losses = [fit.losses.held_out_after for fit in each]
    best = losses.index(min(losses))
    assert 0 < best < 6
    assert [fit.steps for fit in each] == list(range(1, 8))
    assert found.steps == 1 + best
    assert torch.equal(found.map.matrix, each[best].map.matrix)
    assert found.losses == each[best].losses


def test_no_difference_of_sources_that_is_made_of_their_basis() -> None:
    """Turned, moved, scaled and with dimensions that never vary: the same states are stitched in."""
    given = Pair(torch.float64, 40)
    plain = given.fit(steps=20)
    Q = rotation(20, 0)[:16]
    turned = given.fit(7 * given.source @ Q + normal(20), steps=20)
    torch.testing.assert_close(7 * turned.map.matrix @ Q.T, plain.map.matrix, rtol=0, atol=1e-5)
    assert plain.steps == turned.steps > 0
    outside = torch.eye(20, dtype=torch.float64) - Q.T @ Q
    assert (turned.map.matrix @ outside).abs().max() < 1e-8 * turned.map.matrix.abs().max()


def test_the_seed_decides_everything() -> None:
    one, other = pair().fit(steps=5, seed=1), pair().fit(steps=5, seed=1)
    torch.rand(3)
    assert torch.equal(one.map.matrix, other.map.matrix)
    assert one.losses == other.losses
    assert pair().fit(steps=1, seed=2).held_out != one.held_out


def test_shuffled_pairs_teach_nothing_but_a_constant() -> None:
    """Stitched with another prompt's state, such a map does as well as with the right one; a paired map does not."""
    given, wrong = pair(), torch.arange(60).roll(7)

    def advantage(map: LinearMap) -> float:
        right, other = (given.kl(map, given.source_fresh[rows]) for rows in (torch.arange(60), wrong))
        return float((other - right).mean())

    orders = [torch.randperm(80, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    shuffled = torch.tensor([advantage(given.fit(given.source[order], steps=10).map) for order in orders])
    assert abs(float(shuffled.mean())) < 4 * float(shuffled.std()) / len(shuffled) ** 0.5
    assert advantage(given.fit(steps=10).map) > 5 * float(shuffled.abs().max())


def test_the_target_is_left_as_it_was_also_when_training_fails() -> None:
    given = Pair(count=20)
    module = given.target.module
    module.model.norm.weight.requires_grad_(False)
    module.lm_head.weight.grad = torch.ones_like(module.lm_head.weight)
    weights = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    plain, calls = module.lm_head.forward, 0

    def fail(hidden: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise RuntimeError("stopped on the way")
        found: Tensor = plain(hidden)
        return found

    def unchanged() -> bool:
        return all(
            torch.equal(parameter, weights[name])
            and parameter.requires_grad == (name != "model.norm.weight")
            and (parameter.grad is None) == (name != "lm_head.weight")
            for name, parameter in module.named_parameters()
        ) and not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())

    with torch.no_grad():
        assert given.fit(steps=5).steps > 0
    assert unchanged()
    assert module.lm_head.weight.grad.eq(1).all()
    module.lm_head.forward = fail
    with pytest.raises(RuntimeError, match="stopped"):
        given.fit(steps=5)
    assert calls == 9
    assert unchanged()


def bad(rows: Tensor) -> Tensor:
    return torch.where(torch.arange(len(rows))[:, None] == 4, torch.nan, rows)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t, x, b, s, o: fit_stitch(t, x, b, s[1:], o), "source has 79 rows, target 80"),
        (lambda t, x, b, s, o: fit_stitch(t, x[1:], b, s, o), "each of the 79 prompts, got 80 rows"),
        (lambda t, x, b, s, o: fit_stitch(t, x[:9], b, s[:9], o[:9]), "at least 10 prompts.*got 9"),
        (lambda t, x, b, s, o: fit_stitch(t, x, "nowhere", s, o), "no block 'nowhere'"),
        (lambda t, x, b, s, o: fit_stitch(t, x, b, bad(s), o), "source: row 4 holds a value that is not finite"),
        (lambda t, x, b, s, o: fit_stitch(t, x, b, s, o.roll(1, 0)), r"not the target's own at model\.layers\.1"),
        (lambda t, x, b, s, o: fit_stitch(t, x, b, s, o[:, 1:]), r"not the target's own at model\.layers\.1"),
        (lambda t, x, b, s, o: fit_stitch(t, x, b, s, o, place="input"), "not the target's own"),
        (lambda t, x, b, s, o: fit_stitch(t, x, b, s, o, steps=0), "expected all above 0, got 0, 16, 0.01"),
        (lambda t, x, b, s, o: fit_stitch(t, x, b, s, o, batch_size=0), "got 200, 0, 0.01"),
        (lambda t, x, b, s, o: fit_stitch(t, x, b, s, o, learning_rate=float("nan")), "got 200, 16, nan"),
    ],
)
def test_what_cannot_be_used_is_refused(call: Callable[..., object], message: str) -> None:
    given = pair()
    with pytest.raises(InputError, match=message):
        call(given.target, given.texts, given.block, given.source, given.own)
