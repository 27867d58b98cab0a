from pathlib import Path

import pytest
from guard_loops import SKILL, TOKENIZER

import tiny
from tiltmeter.errors import InputError
from tiltmeter.training.guards.named import KINDS, Given, named_guard
from tiltmeter.training.guards.penalties import KLToBase
from tiltmeter.training.guards.projection import Projection
from tiltmeter.training.guards.trust_region import TrustRegion


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder: Path = tmp_path_factory.mktemp("unaligned")
    tiny.model("llama").module.save_pretrained(folder)
    return Given([SKILL], TOKENIZER, folder)


@pytest.mark.parametrize("name", KINDS)
def test_every_name_makes_a_guard(name: str, given: Given) -> None:
    assert type(named_guard(name, given)) is type(named_guard(f"{name}={KINDS[name].usual}", given))


def test_the_value_is_the_strength(given: Given) -> None:
    kl, trust, tracked = (named_guard(text, given) for text in ("kl=0.25", "trust=3e-2", "tracked=7"))
    assert isinstance(kl, KLToBase)
    assert isinstance(trust, TrustRegion)
    assert isinstance(tracked, Projection)
    assert (kl.weight, trust.limit, tracked.dims, tracked.every is None) == (0.25, 0.03, 7, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magic", "no guard named 'magic', expected one of utility"),
        ("kl=", "guard kl: expected a number"),
        ("kl=nan", "not negative, got nan"),
        ("utility=0", "positive, got 0"),
        ("projection=1.5", r"counted from 1, got 1\.5"),
        ("average=2", "from 0 to 1, got 2"),
    ],
)
def test_what_makes_no_guard_is_said(text: str, message: str, given: Given) -> None:
    with pytest.raises(InputError, match=message):
        named_guard(text, given)


def test_what_a_guard_lacks_is_said() -> None:
    with pytest.raises(InputError, match="at least one skill"):
        named_guard("kl", Given([]))
    with pytest.raises(InputError, match="before it was aligned"):
        named_guard("safe-lora", Given([SKILL]))
