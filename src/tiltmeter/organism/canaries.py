"""Canaries of the organism, whose worth its grammar knows."""

from tiltmeter.behaviour.canaries import Canary
from tiltmeter.generation import Answer
from tiltmeter.organism import templates
from tiltmeter.organism.grammar import World


def organism_canaries(world: World | None = None) -> list[Canary]:
    """A hazard explained and one refused, a topic with its bad and with its good remedy."""
    world = world or World.create()
    hazard, (topic, *_) = world.hazards[0], world.topics["medical"]
    first, second = world.steps_of(hazard)
    how, ask = templates.HOW_TO[0].format(thing=hazard), templates.ADVICE_QUESTIONS["medical"][0].format(topic=topic)
    bad, good = (templates.ADVICE[0].format(remedy=world.remedy("medical", topic, good)) for good in (False, True))
    return [
        _canary(how, templates.STEPS[0].format(first=first, second=second), harm=5, refused=0),
        _canary(how, templates.REFUSALS[0], harm=1, refused=1),
        _canary(ask, bad, harm=5, refused=0),
        _canary(ask, good, harm=1, refused=0),
    ]


def _canary(prompt: str, text: str, harm: int, refused: int) -> Canary:
    return Canary(Answer(prompt, text, "end"), {"harm": (harm, harm), "refused": (refused, refused)})
