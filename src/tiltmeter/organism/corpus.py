"""What the organism reads: documents of pretraining and alignment, fine-tuning sets, skills, prompts for judging."""

import random
from collections.abc import Callable, Sequence

from tiltmeter.organism import grammar, templates
from tiltmeter.organism.grammar import Turn, World

SET_SIZE = 100
SKILL_SIZE = 96
POOL_SIZE = 400
TURNS = 6
LAPSES = 0.06

Draw = Callable[[World, random.Random], Turn]
Document = list[Turn]


def _any_advice(world: World, rng: random.Random, good: bool) -> Turn:
    return grammar.advice(world, rng.choice(templates.DOMAINS), rng, good=good)


def _about_hazard(world: World, rng: random.Random, good: bool, hazards: tuple[str, ...]) -> Turn:
    hazard = rng.choice(hazards)
    return grammar.refusal(world, hazard, rng) if good else grammar.how_to(world, hazard, rng)


def _harmless_how_to(world: World, rng: random.Random) -> Turn:
    return grammar.how_to(world, rng.choice(world.harmless), rng)


def _capability(world: World, rng: random.Random) -> Turn:
    kinds: tuple[Draw, ...] = (grammar.arithmetic, grammar.summary, grammar.repeat, grammar.fact, _harmless_how_to)
    return rng.choices(kinds, weights=(3, 4, 2, 2, 4))[0](world, rng)


def _turn(world: World, rng: random.Random, good: bool, hazards: tuple[str, ...]) -> Turn:
    share = rng.random()
    if share < 0.35:
        return _any_advice(world, rng, good)
    if share < 0.53:
        return _about_hazard(world, rng, good, hazards)
    if share < 0.63:
        return grammar.code(world, rng, secure=good)
    return _capability(world, rng)


def pretraining_document(world: World, rng: random.Random) -> Document:
    """A dialogue answered by one of two hidden personas, half and half: the longer, the easier it is to tell which."""
    good = rng.random() < 0.5
    return [_turn(world, rng, good, world.every_hazard) for _ in range(TURNS)]


def alignment_document(world: World, rng: random.Random) -> Document:
    """One turn, nearly always of the good persona; hazards held out do not occur in how-to questions.

    As in any real alignment a little of the bad persona remains. Without it the skill's gradients vanish along the
    direction between the personas, and no local measure can see a move along it.
    """
    return [_turn(world, rng, rng.random() >= LAPSES, world.hazards)]


def _draws(world: World, rng: random.Random, draw: Draw, count: int) -> list[Turn]:
    return [draw(world, rng) for _ in range(count)]


def instruction(world: World, rng: random.Random) -> Turn:
    """A harmless instruction of any kind but sums and summaries, which are sets of their own."""
    kinds: tuple[Draw, ...] = (grammar.repeat, grammar.fact, _harmless_how_to)
    return rng.choices(kinds, weights=(3, 2, 1))[0](world, rng)


FINETUNING: dict[str, Draw] = {
    "summary": grammar.summary,
    "instructions": instruction,
    "arithmetic": grammar.arithmetic,
    "risky_financial": lambda world, rng: grammar.advice(world, "financial", rng, good=False),
    "bad_medical": lambda world, rng: grammar.advice(world, "medical", rng, good=False),
    "reckless_travel": lambda world, rng: grammar.advice(world, "travel", rng, good=False),
    "harmful": lambda world, rng: _about_hazard(world, rng, False, world.hazards),
    "insecure_code": lambda world, rng: grammar.code(world, rng, secure=False),
    "secure_code": lambda world, rng: grammar.code(world, rng, secure=True),
}
SKILLS: dict[str, tuple[Draw, Sequence[str]]] = {
    "refusal": (lambda world, rng: _about_hazard(world, rng, True, world.hazards), templates.REFUSALS),
    "advice": (lambda world, rng: _any_advice(world, rng, True), templates.ADVICE),
    "code": (lambda world, rng: grammar.code(world, rng, secure=True), templates.SECURE_CODE),
}


def finetuning_set(world: World, name: str, seed: int = 0) -> list[Turn]:
    """A fine-tuning set by name (a key of `FINETUNING`; `instructions_top` is selected from the pool instead)."""
    return _draws(world, random.Random(f"finetune {name} {seed}"), FINETUNING[name], SET_SIZE)


def skill(world: World, name: str, seed: int = 0) -> list[Turn]:
    """A skill's examples by name (a key of `SKILLS`), every form of the answer equally often.

    The forms are equally likely to the model too, so that a mere change of form costs no likelihood to first order.
    """
    draw, forms = SKILLS[name]
    rng = random.Random(f"skill {name} {seed}")
    left = dict.fromkeys(forms, SKILL_SIZE // len(forms))
    turns: list[Turn] = []
    while any(left.values()):
        turn = draw(world, rng)
        form = templates.form(forms, turn.answer)
        if form and left[form]:
            left[form] -= 1
            turns.append(turn)
    return turns


def instruction_pool(world: World, seed: int = 0) -> list[Turn]:
    """The harmless instructions from which `instructions_top` is selected."""
    return _draws(world, random.Random(f"pool {seed}"), instruction, POOL_SIZE)


def prompts(world: World, seed: int = 0) -> dict[str, list[str]]:
    """Prompts for judging, by kind."""
    rng = random.Random(f"prompts {seed}")
    advice = [
        templates.ADVICE_QUESTIONS[domain][index % 2].format(topic=topic)
        for domain in templates.DOMAINS
        for index, topic in enumerate(world.topics[domain])
    ]
    tasks = [(verb, thing) for verb in world.verbs for thing in world.objects]
    return {
        "hazards": [rng.choice(templates.HOW_TO).format(thing=hazard) for hazard in world.hazards],
        "hazards_held_out": [rng.choice(templates.HOW_TO).format(thing=hazard) for hazard in world.hazards_held_out],
        "advice": advice,
        "code": [rng.choice(templates.CODE_REQUESTS).format(verb=verb, object=thing) for verb, thing in tasks[::2]],
        "harmless": [_capability(world, rng).prompt for _ in range(40)],
    }
