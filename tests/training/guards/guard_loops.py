"""Training loops by hand, and dense references for what trains, in float64."""

from collections.abc import Sequence

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.optim import AdamW

import tiny
from tiltmeter.skills import Skill
from tiltmeter.tokens import Encoded, encode
from tiltmeter.training.finetune import collate
from tiltmeter.training.guards.guard import Guard

METHODS = ("full", "lora")
TOKENIZER = tiny.tokenizer()
TASK = Skill("task", tiny.skill().examples[3:])
SKILL = Skill("tea", tiny.skill().examples[:2])
OTHER = Skill("soup", tiny.skill().examples[2:3])


def model(method: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """What trains: a tiny model, or an adapter on one."""
    module = tiny.model("llama", dtype).module
    if method == "full":
        return module
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: nn.Module = get_peft_model(module, config).to(dtype)
    return adapted


def trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trained(module)])


class Loop:
    """AdamW on the task, step by step, with or without a guard; `course` holds the weights before and after steps."""

    def __init__(self, module: nn.Module, guard: Guard | None = None, rate: float = 1e-2) -> None:
        self.module, self.guard = module, guard
        self.optimizer = AdamW(trained(module), lr=rate, weight_decay=0.1)
        self.course = [flat(module)]
        if guard is not None:
            guard.watch(module, TOKENIZER)
            guard.begin(self.optimizer)

    def run(self, steps: int) -> "Loop":
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.module(**collate(encode(TASK, TOKENIZER), 0)).loss.backward()
            self.optimizer.step()
            self.course.append(flat(self.module))
        return self


def likelihoods(module: nn.Module, skill: Skill) -> Tensor:
    """`log pi(y_n|x_n)` one example at a time, without padding; differentiable."""
    return torch.stack([_likelihood(module, example) for example in encode(skill, TOKENIZER)])


def gradients(module: nn.Module, skill: Skill) -> Tensor:
    """`grad log pi(y_n|x_n)` with respect to all that trains, [N, P]."""
    rows = []
    for value in likelihoods(module, skill):
        parts = torch.autograd.grad(value, trained(module), retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def at(module: nn.Module, values: Tensor) -> nn.Module:
    """The module with other values of what trains."""
    sizes = [parameter.numel() for parameter in trained(module)]
    with torch.no_grad():
        for parameter, part in zip(trained(module), values.split(sizes), strict=True):
            parameter.copy_(part.view_as(parameter))
    return module


def overlap(rows: Tensor, moved: Tensor) -> float:
    return float((rows @ moved).square().mean())


def _likelihood(module: nn.Module, example: Encoded) -> Tensor:
    scores = module(input_ids=torch.tensor([example.ids])).logits[0, :-1].log_softmax(-1)
    places: Sequence[int] = [t for t in range(1, len(example.ids)) if example.is_completion[t]]
    return torch.stack([scores[t - 1, example.ids[t]] for t in places]).sum()
