"""Answers do not depend on their neighbours, on padding or on a checkpoint's own settings, and are true draws."""

import dataclasses

import pytest
import torch
from scipy import stats
from transformers import GenerationConfig

import tiny
from tiltmeter.errors import InputError
from tiltmeter.generation import (
    GREEDY,
    MODEL_ITSELF,
    GumbelNoise,
    Sampling,
    generate_answers,
    generate_batch,
    generate_ids,
    plan_batches,
    resample,
)
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.models import Model
from tiltmeter.tokens import encode, encode_prompt

PROMPTS = [
    "tea",
    "how do i make tea",
    "make soup",
    "i",
    "wait wait wait wait",
    "two good tea",
    "how do i make bad bread",
]
SHORT = dataclasses.replace(GREEDY, max_new_tokens=8)
DRAWN = Sampling(temperature=0.9, top_p=0.95, top_k=12, max_new_tokens=8, seed=5)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny.model("llama", torch.float64, seed=5)  # a seed with which some greedy answers end early


def ids_of(model: Model, prompts: list[str]) -> list[list[int]]:
    return [encode_prompt([{"role": "user", "content": prompt}], model.tokenizer) for prompt in prompts]


def by_hand(model: Model, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding of one prompt, without cache, padding or `generate`."""
    ids: list[int] = []
    while len(ids) < count and model.tokenizer.eos_token_id not in ids:
        with torch.no_grad():
            ids.append(int(model.module(torch.tensor([prompt + ids])).logits[0, -1].argmax()))
    return ids


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("family", "seed"), [("llama", 5), ("gpt2", 6)])
def test_greedy_answers_are_those_of_plain_decoding(family: str, seed: int, side: str) -> None:
    model = tiny.model(family, torch.float64, side, seed)
    prompts = ids_of(model, PROMPTS)
    expected = [by_hand(model, prompt, 8) for prompt in prompts]
    for size in (1, 3, 7):
        assert generate_ids(model, prompts, SHORT, size) == expected
    assert len({len(ids) for ids in expected}) > 1


def test_drawn_answers_do_not_depend_on_the_batch(model: Model) -> None:
    prompts = ids_of(model, PROMPTS)
    together = generate_ids(model, prompts, DRAWN, 7)
    assert generate_ids(model, prompts, DRAWN, 1) == together
    assert generate_ids(model, prompts, DRAWN, 2) == together


def test_the_seed_and_the_row_decide_what_is_drawn(model: Model) -> None:
    prompts = ids_of(model, ["tea"] * 6)
    drawn = generate_ids(model, prompts, DRAWN)
    assert len({tuple(ids) for ids in drawn}) > 1
    assert generate_ids(model, prompts, DRAWN) == drawn
    assert generate_ids(model, prompts, dataclasses.replace(DRAWN, seed=6)) != drawn
    assert generate_ids(model, prompts, dataclasses.replace(DRAWN, seed=-1)) != drawn


def test_noise_is_the_same_in_every_process_and_for_every_batch() -> None:
    noise = GumbelNoise([(0, 0), (3, 0)], seed=7)(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 3))
    expected = [[-0.6649246410, -0.6752638485, -0.7534332141], [-0.3068365476, -0.2793219559, 1.5054564343]]
    torch.testing.assert_close(noise, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=0)


def test_top_k_of_one_is_greedy(model: Model) -> None:
    prompts = ids_of(model, PROMPTS)
    only = dataclasses.replace(MODEL_ITSELF, top_k=1, max_new_tokens=8)
    assert generate_ids(model, prompts, only) == generate_ids(model, prompts, SHORT)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_tokens_are_distributed_as_the_softmax(model: Model, temperature: float) -> None:
    prompt = ids_of(model, ["how do i make tea"])[0]
    count = 3000
    sampling = Sampling(temperature, 1.0, 0, max_new_tokens=1, seed=11)
    drawn = torch.tensor(generate_ids(model, [prompt] * count, sampling, 1500))[:, 0]
    with torch.no_grad():
        expected = (model.module(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1)
    observed = drawn.bincount(minlength=len(expected)).double()
    assert stats.chisquare(observed, count * expected).pvalue > 0.001
    warmer = (0.8 * expected.log()).softmax(-1)
    assert stats.chisquare(observed, count * warmer).pvalue < 1e-6


def test_top_p_leaves_only_the_likeliest_tokens(model: Model) -> None:
    prompt = ids_of(model, ["how do i make tea"])[0]
    with torch.no_grad():
        sure = model.module(torch.tensor([prompt])).logits[0, -1].softmax(-1).sort(descending=True)
    count = int((sure.values.cumsum(0) < 0.6).sum()) + 1
    drawn = generate_ids(model, [prompt] * 400, Sampling(1.0, 0.6, 0, max_new_tokens=1), 400)
    assert {ids[0] for ids in drawn} == set(sure.indices[:count].tolist())


def test_min_p_leaves_only_tokens_near_the_likeliest(model: Model) -> None:
    prompt = ids_of(model, ["how do i make tea"])[0]
    with torch.no_grad():
        probabilities = (model.module(torch.tensor([prompt])).logits[0, -1] / 1.5).softmax(-1)
    near = set((probabilities >= 0.3 * probabilities.max()).nonzero()[:, 0].tolist())
    assert 1 < len(near) < len(probabilities)
    drawn = generate_ids(model, [prompt] * 400, Sampling(1.5, 1.0, 0, 0.3, max_new_tokens=1), 400)
    assert {ids[0] for ids in drawn} == near


def test_samples_of_a_prompt_differ_and_the_first_is_the_only_one(model: Model) -> None:
    prompts = ids_of(model, PROMPTS)
    plan = plan_batches(prompts, 4, samples=3)
    assert sorted(draw for batch in plan for draw in batch) == [(r, s) for r in range(len(prompts)) for s in range(3)]
    assert [len(batch) for batch in plan] == [4, 4, 4, 4, 4, 1]
    drawn = {draw: ids for batch in plan for draw, ids in zip(batch, generated(model, prompts, batch), strict=True)}
    assert [drawn[row, 0] for row in range(len(prompts))] == generate_ids(model, prompts, DRAWN)
    assert any(drawn[row, 0] != drawn[row, 1] != drawn[row, 2] != drawn[row, 0] for row in range(len(prompts)))
    assert generated(model, prompts, [(3, 2)]) == [drawn[3, 2]]


def generated(model: Model, prompts: list[list[int]], draws: list[tuple[int, int]]) -> list[list[int]]:
    return generate_batch(model, prompts, draws, DRAWN)


def test_some_draws_are_no_longer_than_with_the_whole_set(model: Model) -> None:
    prompts = ids_of(model, ["tea " * 50, "tea"])
    (alone,) = generate_batch(model, prompts, [(1, 0)], Sampling(max_new_tokens=99))
    assert alone == generate_ids(model, prompts, Sampling(max_new_tokens=99))[1]


def test_a_checkpoints_own_settings_change_nothing(model: Model) -> None:
    prompts = ids_of(model, PROMPTS)
    before = [generate_ids(model, prompts, each) for each in (SHORT, DRAWN)]
    plain = model.module.generation_config
    model.module.generation_config = own = GenerationConfig(
        do_sample=True, temperature=9.0, top_k=2, repetition_penalty=5.0, num_beams=3, no_repeat_ngram_size=1,
        min_new_tokens=6, max_length=3, suppress_tokens=[7, 8, 9], eos_token_id=2,
    )  # fmt: skip
    try:
        assert [generate_ids(model, prompts, each) for each in (SHORT, DRAWN)] == before
        assert model.module.generation_config is own
    finally:
        model.module.generation_config = plain


def test_an_answer_says_why_it_stopped(model: Model) -> None:
    answers = generate_answers(model, PROMPTS, SHORT)
    ids = generate_ids(model, ids_of(model, PROMPTS), SHORT)
    assert [answer.prompt for answer in answers] == PROMPTS
    assert [answer.stop for answer in answers] == ["end" if 2 in each else "length" for each in ids]
    assert {answer.stop for answer in answers} == {"end", "length"}
    for answer, each in zip(answers, ids, strict=True):
        assert answer.text == str(model.tokenizer.decode(each, skip_special_tokens=True)).strip()
        assert "<eos>" not in answer.text
        assert 2 not in each[:-1]


def test_no_answer_is_longer_than_the_model_takes(model: Model) -> None:
    prompt = ids_of(model, ["tea " * 50])[0]
    (ids,) = generate_ids(model, [prompt], Sampling(max_new_tokens=99))
    assert len(prompt) + len(ids) <= 64
    with pytest.raises(InputError, match=r"a prompt has 73 tokens: no room for an answer, the model takes 64"):
        generate_ids(model, ids_of(model, ["tea " * 70]), SHORT)


def test_resampled_completions_are_the_models_own(model: Model) -> None:
    given = encode(tiny.skill(), model.tokenizer)
    drawn = resample(model, given, seed=1)
    for old, new in zip(given, drawn, strict=True):
        start = old.is_completion.index(True)
        assert new.ids[:start] == old.ids[:start]
        assert new.is_completion == [False] * start + [True] * (len(new.ids) - start)
        assert 1 <= sum(new.is_completion) <= 2 * max(sum(each.is_completion) for each in given)
    assert float(log_likelihoods(model, drawn).mean()) < 0
    assert resample(model, given, seed=2) != drawn


def test_answers_from_nan_are_refused() -> None:
    """A short prompt beside a long one, in float64: padding and sliding windows leave its first rows nothing to see."""
    model = tiny.model("gemma2")
    model.module.double()
    prompts = ["tea", " ".join(["soup"] * 17)]
    for sampling in (GREEDY, Sampling()):
        with pytest.raises(InputError, match="NaN for the next token; load it in float32"):
            generate_answers(model, prompts, dataclasses.replace(sampling, max_new_tokens=2), batch_size=2)
