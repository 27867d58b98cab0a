"""What a probe reads equals one example at a time, without padding, in float64."""

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.connect.probe import Probe, memory_needed
from tiltmeter.errors import NothingMeasuredError
from tiltmeter.geometry.path import End, WeightPath
from tiltmeter.layers import widths
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded, encode
from tiltmeter.updates.update import Update
from truth import float64_throughout


def path_of(model: Model) -> WeightPath:
    draw = torch.Generator().manual_seed(0)
    names = [name for name in model.linears if name.startswith(("model.layers.1", "transformer.h.1"))]
    deltas = {
        name: 0.1 * torch.randn(*widths(model.linears[name]), generator=draw, dtype=torch.float64) for name in names
    }
    return WeightPath(model, [End(Update.from_tensors(deltas))])


def alone(model: Model, example: Encoded) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Log-probabilities [T, V], completion tokens [T] and outputs of each block [T, h], where they are predicted."""
    outputs: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, __, out: outputs.append(out[0] if isinstance(out, tuple) else out))
        for block in model.blocks.values()
    ]
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([example.ids]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    places = [t - 1 for t, is_completion in enumerate(example.is_completion) if is_completion]
    tokens = torch.tensor(example.ids)[[t + 1 for t in places]]
    return logits[places].log_softmax(-1), tokens, [output[0][places] for output in outputs]


@pytest.mark.parametrize(("family", "side"), [("llama", "left"), ("llama", "right"), ("gpt2", "left")])
def test_readings_equal_one_example_at_a_time(family: str, side: str) -> None:
    model = tiny.model(family, torch.float64, side)
    encoded, path = encode(tiny.skill(), model.tokenizer), path_of(model)
    with float64_throughout():
        probe = Probe(model, encoded, 3, with_kl=True)
        probe.keep_base(model)
        at: dict[float, list[tuple[Tensor, Tensor, list[Tensor]]]] = {}
        for s in (0.0, 1.0, 0.4):
            with path.at(s):
                if s in (0, 1):
                    probe.keep_end(model)
                at[s] = [alone(model, example) for example in encoded]
        with path.at(0.4):
            reading = probe.read(model, 0.4)
            torch.testing.assert_close(reading.log_likelihoods, log_likelihoods(model, encoded), rtol=0, atol=1e-12)
    kl = [(base.exp() * (base - found)).sum() for (base, _, _), (found, _, _) in zip(at[0.0], at[0.4], strict=True)]
    assert reading.kl is not None
    torch.testing.assert_close(reading.kl, torch.stack(kl), rtol=1e-10, atol=1e-12)
    likelihoods = torch.stack([found.gather(1, tokens[:, None]).sum() for found, tokens, _ in at[0.4]])
    torch.testing.assert_close(reading.log_likelihoods, likelihoods, rtol=0, atol=1e-11)
    linearity = reading.linearity
    assert linearity is not None
    for block in range(2):
        f, start, end = ([found[block] for _, _, found in at[s]] for s in (0.4, 0.0, 1.0))
        mean = torch.cat(f).mean(0)
        for n, (now, first, last) in enumerate(zip(f, start, end, strict=True)):
            mix = 0.6 * first + 0.4 * last
            expected = {
                "off_mix": now - mix,
                "mix": mix,
                "gap": first - last,
                "off_start": now - first,
                "off_end": now - last,
                "spread": now - mean,
            }
            for name, values in expected.items():
                found = getattr(linearity, name)[n, block]
                assert float(found) == pytest.approx(float(values.square().sum()), rel=1e-9, abs=1e-12), name
    assert linearity.distance_over_gap(0) is None  # only the second block moves
    assert linearity.distance_over_gap(1) is not None


def test_what_is_kept_takes_the_memory_that_was_foretold() -> None:
    model = tiny.model("llama")
    encoded = encode(tiny.skill(), model.tokenizer)
    probes = [Probe(model, encoded, 2, with_kl=with_kl) for with_kl in (True, False)]
    for probe in probes:
        probe.keep_base(model)
        probe.keep_end(model)
        probe.keep_end(model)
    tokens = sum(sum(example.is_completion) for example in encoded)
    assert memory_needed(model, encoded, [*encoded, *encoded]) == 4 * tokens * (26 + 2 * 2 * 2 * 16)
    assert sum(probe.kept_bytes for probe in probes) == memory_needed(model, encoded, [*encoded, *encoded])


def test_a_model_beside_the_path_has_no_features() -> None:
    model = tiny.model("llama")
    probe = Probe(model, encode(tiny.skill(2), model.tokenizer), 2, with_kl=False)
    reading = probe.read(model, None)
    assert reading.linearity is None
    assert reading.kl is None


def test_numbers_that_are_none_end_the_walk() -> None:
    model = tiny.model("llama")
    probe = Probe(model, encode(tiny.skill(2), model.tokenizer), 2, with_kl=False)
    with torch.no_grad():
        model.module.get_parameter("model.norm.weight").fill_(torch.inf)
    with pytest.raises(NothingMeasuredError, match=r"s = 1\.5 are no numbers"):
        probe.read(model, 1.5)
