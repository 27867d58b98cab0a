"""He et al.'s score against its definition on dense gradients."""

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.gradient_matching import first_tokens, matching_scores
from tiltmeter.models import Model
from tiltmeter.skills import Skill
from tiltmeter.tokens import Encoded
from truth import example_gradients, float64_throughout


def unit_gradients(model: Model, fisher: Fisher, encoded: list[Encoded]) -> Tensor:
    gradients = example_gradients(model, encoded)
    stacked = torch.stack([torch.cat([g[name].flatten() for name in fisher.modules]) for g in gradients])
    return torch.nn.functional.normalize(stacked, dim=1)


def part(rows: slice) -> Skill:
    return Skill("part", tiny.skill().examples[rows])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_scores_equal_their_definition(family: str) -> None:
    model = tiny.model(family, torch.float64)
    with float64_throughout():
        candidates = Fisher(model, tiny.skill(), batch_size=2)
        harmful, safe = (Fisher(model, part(rows)) for rows in (slice(0, 2), slice(2, 5)))
        units = unit_gradients(model, candidates, candidates.encoded)
        expected = units @ (units[:2].mean(0) - units[2:].mean(0))
        torch.testing.assert_close(matching_scores(candidates, harmful, safe), expected, rtol=1e-9, atol=1e-12)


def test_the_first_tokens_are_those_of_the_completion() -> None:
    model = tiny.model("llama", torch.float64)
    with float64_throughout():
        whole = Fisher(model, tiny.skill(), batch_size=2)
        whole.gram()
        cut = first_tokens(whole, 2)
        for before, after in zip(whole.encoded, cut.encoded, strict=True):
            assert sum(after.is_completion) == min(2, sum(before.is_completion))
            assert before.ids[: len(after.ids)] == after.ids
            assert after.is_completion[-1]
        units = unit_gradients(model, whole, cut.encoded)
        expected = units @ (units.mean(0) - units[:2].mean(0))
        scores = matching_scores(cut, cut, first_tokens(Fisher(model, part(slice(0, 2))), 2))
        torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-12)
        assert not torch.equal(cut.gram(), whole.gram())
