"""Accuracy against the organism's grammar and dense likelihoods; perplexity against the plain chain rule."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from tiltmeter.behaviour.capability import task_accuracy
from tiltmeter.behaviour.perplexity import perplexity
from tiltmeter.behaviour.tasks import Task
from tiltmeter.bounded_intervals import score_interval
from tiltmeter.errors import InputError
from tiltmeter.models import Model, load_model
from tiltmeter.organism import grammar, templates
from tiltmeter.organism.export import CHECKPOINT
from tiltmeter.organism.grammar import World
from tiltmeter.organism.templates import parse
from tiltmeter.tokens import encode_prompt
from truth import float64_throughout


def sums(count: int) -> list[tuple[Task, int]]:
    """Prompts of the organism with the sums that they ask for."""
    world, rng = World.create(), random.Random(1)
    made = []
    for _ in range(count):
        prompt = grammar.arithmetic(world, rng).prompt
        slots = parse(templates.SUMS, prompt)
        assert slots
        total = int(slots["a"]) + int(slots["b"])
        made.append((Task(prompt, str(total)), total))
    return made


def test_accuracy_on_the_organisms_sums_is_its_grammars() -> None:
    model = load_model(CHECKPOINT / "aligned")
    tasks = sums(60)
    found = task_accuracy(model, [task for task, _ in tasks])
    assert len(set(found.answers)) > 20
    for answer, right, (_, total) in zip(found.answers, found.right, tasks, strict=True):
        slots = parse(templates.SUM_ANSWERS, answer)
        assert right == (slots is not None and int(slots["sum"]) == total)
    shifted = task_accuracy(model, [replace(task, answer=str(total + 1)) for task, total in tasks])
    assert not (shifted.right * found.right).any()
    assert found.right.mean() > 0.5
    interval = score_interval(found.right, np.ones(60), (0, 1))
    assert found.accuracy == interval
    assert 0 < interval.low < interval.mean <= interval.high <= 1


def likelihood(model: Model, prompt: str, option: str) -> float:
    """log pi(option and its end | prompt), one text at a time."""
    start = encode_prompt([{"role": "user", "content": prompt}], model.tokenizer)
    ids = [*start, *model.tokenizer(f" {option} <eos>", add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        values = model.module(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(values[place - 1, ids[place]]) for place in range(len(start), len(ids)))


def test_the_most_likely_option_is_chosen() -> None:
    model = tiny.model("llama", torch.float64)
    options = ("tea", "bread", "sorry cannot", "first boil then stir")
    prompts = ["how make tea", "how do i", "soup", "stir bake wait good bad", "help"]
    tasks = [Task(prompt, "bread", options) for prompt in prompts]
    best = [max((likelihood(model, prompt, option), option) for option in options)[1] for prompt in prompts]
    mixed = [tasks[0], Task("how", "5"), *tasks[1:]]
    with float64_throughout():
        found = task_accuracy(model, mixed, batch_size=3)
        shuffled = task_accuracy(model, [replace(task, options=options[::-1]) for task in tasks])
    assert [found.answers[0], *found.answers[2:]] == best == list(shuffled.answers)
    assert len(set(best)) > 1
    assert [found.right[0], *found.right[2:]] == [float(option == "bread") for option in best]


def test_no_task_is_an_error() -> None:
    with pytest.raises(InputError, match="expected at least one task"):
        task_accuracy(tiny.model("llama"), [])


TEXTS = ["how do i make tea", "soup first boil then stir bake wait good bad two three tea bread soup", "stir bake"]


def surprise(model: Model, before: list[int], token: int) -> float:
    """-log pi(token | before), by a forward pass of its own."""
    with torch.no_grad():
        return -float(model.module(input_ids=torch.tensor([before])).logits[0, -1].log_softmax(-1)[token])


@pytest.mark.parametrize("side", ["left", "right"])
def test_perplexity_is_the_chain_rules(side: str) -> None:
    model = tiny.model("llama", torch.float64, padding_side=side)
    ids = [model.tokenizer(text)["input_ids"] for text in TEXTS]
    with float64_throughout():
        truth = [sum(surprise(model, each[:place], each[place]) for place in range(1, len(each))) for each in ids]
        for size in (1, 2):
            found = perplexity(model, TEXTS, batch_size=size)
            assert found.losses.tolist() == pytest.approx(truth, rel=1e-10)
    assert found.tokens.tolist() == [len(each) - 1 for each in ids]
    assert found.value.mean == pytest.approx(math.exp(sum(truth) / sum(len(each) - 1 for each in ids)))
    assert found.value.low < found.value.mean < found.value.high


def context_start(place: int, window: int, count: int) -> int:
    """Where the window begins that predicts a token: the n-th after the first ends at `window + n * (window // 2)`."""
    if place < window:
        return 0
    number = (place - window) // (window // 2) + 1
    return min(window + number * (window // 2), count) - window


@pytest.mark.parametrize("window", [2, 3, 4, 5, 8, 64])
def test_windows_slide_by_half_and_predict_each_token_once(window: int) -> None:
    model = tiny.model("llama", torch.float64)
    ids = model.tokenizer(TEXTS[1])["input_ids"]
    starts = [context_start(place, window, len(ids)) for place in range(len(ids))]
    assert all(place - start >= min(place, window // 2) for place, start in enumerate(starts))
    with float64_throughout():
        truth = sum(surprise(model, ids[starts[place] : place], ids[place]) for place in range(1, len(ids)))
        found = perplexity(model, TEXTS[1:2], window=window)
    assert found.losses.tolist() == pytest.approx([truth], rel=1e-10)
    assert found.tokens.tolist() == [len(ids) - 1]


def test_a_text_longer_than_the_models_positions_is_read() -> None:
    model = tiny.model("gpt2")
    found = perplexity(model, [" ".join(TEXTS[1:2] * 10)])
    assert found.tokens.tolist() == [14 * 10 - 1]
    assert 1 < found.value.mean < 1000


def test_what_cannot_be_read_is_named() -> None:
    model = tiny.model("llama")
    for texts, window, message in [
        ([], 8, "expected at least one text"),
        (["tea soup", "tea"], 8, "text 2: expected two or more tokens, got 1"),
        (["tea soup"], 1, "expected a window of two or more tokens, got 1"),
    ]:
        with pytest.raises(InputError, match=message):
            perplexity(model, texts, window=window)
