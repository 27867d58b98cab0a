"""Features along a path against their definitions, by the plainest means."""

import pytest
import torch
from torch import Tensor, nn

import tiny
from tiltmeter.geometry.features import Linearity, LinearitySums, block_outputs


def features(count: int = 30, blocks: int = 2, width: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(rows, f, start, end) of tokens."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(4, (count,), generator=draw)
    f, start, end = torch.randn(3, blocks, count, width, generator=draw, dtype=torch.float64)
    return rows, f + 2, start + 2, end + 2


def summed(s: float, rows: Tensor, f: Tensor, start: Tensor, end: Tensor) -> Linearity:
    sums = LinearitySums(s, (4, len(f), f.shape[2]))
    for part in (slice(0, 13), slice(13, None)):
        sums.add(rows[part], *([*values[:, part]] for values in (f, start, end)))
    return sums.total(torch.float64)


def test_figures_equal_their_definitions() -> None:
    rows, f, start, end = features()
    found = summed(0.3, rows, f, start, end)
    for block in range(2):
        mix = 0.7 * start[block] + 0.3 * end[block]
        off, gap = (f[block] - mix).norm(), (start[block] - end[block]).norm()
        spread = (f[block] - f[block].mean(0)).square().sum()
        nearer = min((f[block] - one[block]).square().sum() for one in (start, end))
        assert found.distance(block).mean == pytest.approx(float(off / mix.norm()), rel=1e-12)
        assert found.ends_apart(block).mean == pytest.approx(float(gap / mix.norm()), rel=1e-12)
        control, explained, copied = (
            found.distance_over_gap(block),
            found.explained(block),
            found.explained_by_end(block),
        )
        assert control is not None
        assert explained is not None
        assert copied is not None
        assert control.mean == pytest.approx(float(off / gap), rel=1e-12)
        assert explained.mean == pytest.approx(float(1 - off**2 / spread), rel=1e-11)
        assert copied.mean == pytest.approx(float(1 - nearer / spread), rel=1e-11)
        for interval in (found.distance(block), control, explained, copied):
            assert interval.low < interval.mean < interval.high


def test_a_straight_line_in_features() -> None:
    rows, _, start, end = features()
    found = summed(0.3, rows, 0.7 * start + 0.3 * end, start, end)
    control, explained, copied = found.distance_over_gap(0), found.explained(0), found.explained_by_end(0)
    assert control is not None
    assert explained is not None
    assert copied is not None
    assert control.mean < 1e-14
    assert explained.mean == pytest.approx(1)
    assert copied.mean < 0.9  # a copy of an end does not do as well


def test_ends_of_equal_features_have_no_control() -> None:
    rows, f, start, _ = features()
    noise = 1e-15 * torch.randn(start.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = summed(0.5, rows, start + noise, start, start - noise)
    assert found.distance_over_gap(0) is None
    assert found.distance(0).mean < 1e-14
    same = summed(0.5, rows, torch.ones_like(f), start, start)
    assert same.explained(0) is None


def test_block_outputs_of_tensors_and_tuples() -> None:
    model = tiny.model("llama")
    ids = torch.tensor([[1, 7, 8, 9]])
    expected = model.module(input_ids=ids, output_hidden_states=True).hidden_states
    with torch.no_grad(), block_outputs(model) as found:
        model.module(input_ids=ids)
        model.module(input_ids=ids)
        assert len(found) == 2
        torch.testing.assert_close(found[0], expected[1])
        own = [*found]
    model.module(input_ids=ids)
    assert [id(each) for each in found] == [id(each) for each in own]  # the hooks are gone

    class InTuple(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *args: Tensor) -> tuple[Tensor, None]:
            return self.inner(*args), None

    stack = {"0": InTuple(nn.Linear(3, 3))}
    with block_outputs(type(model)(model.module, model.tokenizer, dict(stack), {})) as found:
        output = stack["0"](torch.ones(1, 2, 3))
    assert found[0] is output[0]
