"""The sentence says what the gate found, and no more."""

from dataclasses import replace

import numpy as np
from made_arms import SHARE, plain_arms

from tiltmeter.activations.specificity.gate import Battery, gate
from tiltmeter.activations.specificity.wording import sentence


def span(found: Battery) -> str:
    effect = found.arms[0].measured.effect
    assert effect is not None
    return f"{effect.mean:.3g} ({effect.low:.3g} to {effect.high:.3g})"


def test_specific() -> None:
    found = gate(plain_arms([0.8], [0.25] * 59, after=1.0), SHARE)
    assert sentence(found, "the share of code") == (
        f"Steering at block 0, dose 1 is specific: an effect of {span(found)} on the share of code over 10 prompts, "
        "more than every control: the closest, isotropic, reaches 0.25 at the 95th percentile of 59 draws (p 0.017 "
        "after Holm over 1 arm)."
    )


def test_causal_but_not_specific() -> None:
    found = gate(plain_arms([0.8, 0.1], [0.9] * 59, after=1.0), SHARE)
    assert sentence(found) == (
        f"Steering at block 0, dose 1 is causal but not specific: an effect of {span(found)} on the outcome over 10 "
        "prompts (p 0.0039 after Holm over 2 arms), but not beyond the controls: the closest, isotropic, reaches 0.9 "
        "at the 95th percentile of 59 draws (p 1 after Holm over 2 arms)."
    )


def test_a_given_vector_that_does_more() -> None:
    (arm,) = plain_arms([0.8], [0.1] * 59, after=1.0)
    found = gate([replace(arm, single={"benign": np.full(10, 0.1)})], SHARE)
    assert (
        "but not beyond the controls: the closest, benign, does 0.1 more, and the strongest at random, isotropic, "
        "reaches 0.1 at the 95th percentile of 59 draws (p 1 after Holm over 1 arm)."
    ) in sentence(found)
    unknown = gate([replace(arm, single={"benign": np.full(10, np.nan)})], SHARE)
    assert "the closest, benign, has no verdict to compare with, and the strongest" in sentence(unknown)


def test_what_was_not_looked_at() -> None:
    found = sentence(gate(plain_arms([0.8], ()), SHARE))
    assert found.endswith(", and no random control was drawn; coherence was not measured.")


def test_too_little_to_be_specific() -> None:
    (few,) = plain_arms([0.8], [0.0] * 9, after=1.0)
    assert sentence(gate([few], SHARE)).endswith(
        "out of reach of any effect with 9 draws and 10 prompts in 1 arm: it takes 19 draws."
    )
    (enough,) = plain_arms([0.8], after=1.0)
    found = gate([replace(enough, single={"benign": np.array([0.9, *[np.nan] * 9])})], SHARE)
    assert sentence(found).endswith("with 59 draws and 10 prompts in 1 arm: it takes more prompts.")


def test_no_effect() -> None:
    arms = plain_arms([0.0, 0.0])
    found = gate(arms, SHARE)
    assert sentence(found) == (
        f"Steering at block 0, dose 1 has no effect beyond chance in the wanted direction: {span(found)} on the "
        "outcome over 10 prompts (p 1 after Holm over 2 arms)."
    )
    ones = np.ones(10)
    broken = replace(arms[1], coherent_before=ones, coherent_after=0 * ones)
    unknown = gate([replace(arms[0], steered=np.full(10, np.nan)), broken], SHARE)
    assert "in the wanted direction: no verdict on the outcome for any prompt (p 1" in sentence(unknown)


def test_a_broken_model() -> None:
    found = gate(plain_arms([0.8], after=0.5), SHARE)
    fall = found.arms[0].measured.coherence_fall
    assert fall is not None
    assert sentence(found) == (
        "Steering at block 0, dose 1 broke the model: the share of coherent answers fell by "
        f"0.5 ({fall.low:.3g} to {fall.high:.3g}), beside an effect of {span(found)} on the outcome over 10 prompts."
    )
