"""Two tiny models of other widths, depths and tokenizers that misbehave along the same feature of a prompt, on disk.

In each, uniform attention of the first block writes means of features of the prompt's words along axes of the states.
The head says BAD where a state lies further along the first of them (U) than along E, else GOOD: the fine-tunes move
every state along U, which no base does. A linear map between the bases' states finds that their axes U belong together;
with one feature alone it sends every vector to U.
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import saved
import tiny
from folders import write_lines
from planted import BAD, GOOD
from tiltmeter.behaviour.judges.named import JudgeRequest
from tiltmeter.directions.steer_request import Gate
from tiltmeter.directions.transfer_request import Carrying, Subject, TransferRequest, TransferSources
from tiltmeter.generation import GREEDY
from tiltmeter.judge.request import Answering

WORDS = [word for word in tiny.WORDS if word not in (BAD, "sorry")]
TEMPLATES = (
    "{% for m in messages %}{{ '<user> ' + m['content'] }}{% endfor %}{{ ' <assistant>' }}",
    "{% for m in messages %}{{ '<bos> ' + m['content'] + ' <eos>' }}{% endfor %}{{ ' <assistant>' }}",
)
SIZES = {"one": (40, 2), "two": (32, 3)}  # width, blocks
U, E, ON = 0, 1, 3  # axes of the states; an input of the last MLP's output layer
FEATURES = 12
READ, WRITTEN = range(2, 2 + FEATURES), (U, *range(2 + FEATURES, 1 + 2 * FEATURES))  # axes of the features
SHIFT, FROM, HEAD = 8.0, -1.0, 0.8  # how far the fine-tunes move along U, where its states begin, and those of E


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Splits at blanks; the second one numbers the words the other way round, and has another template."""
    number = list(SIZES).index(name)
    words = [*tiny.WORDS, GOOD][:: -1 if number else 1]
    vocabulary = {word: index for index, word in enumerate([*tiny.SPECIAL, *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        padding_side="left",
    )  # fmt: skip
    made.chat_template = TEMPLATES[number]
    return made


def module(name: str, features: int = FEATURES) -> Any:
    """The base of that name; so many features vary over prompts, U first."""
    width, blocks = SIZES[name]
    words = tokenizer(name)
    torch.manual_seed(width)
    sizes = {**tiny._SIZES, "hidden_size": width, "num_hidden_layers": blocks, "vocab_size": len(words)}
    made: Any = LlamaForCausalLM(LlamaConfig(**{**tiny._COMMON, **sizes}, mlp_bias=True))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.02)
        _plant_features(made, words, features)
        made.lm_head.weight.zero_()
        made.lm_head.weight[words.convert_tokens_to_ids(GOOD), E] = 1.0
        made.lm_head.weight[words.convert_tokens_to_ids(BAD), U] = 1.0
        last = made.model.layers[-1].mlp
        last.down_proj.bias[U], last.down_proj.bias[E] = FROM, HEAD
        last.gate_proj.bias[ON], last.up_proj.bias[ON] = 10.0, 1.0
    return made.eval()


def _plant_features(made: Any, words: PreTrainedTokenizerFast, features: int) -> None:
    draw = random.Random("features")
    for word in tiny.WORDS:
        values = torch.tensor([draw.uniform(-1, 1) for _ in READ])
        made.model.embed_tokens.weight[words.convert_tokens_to_ids(word), READ] = values
    attention = made.model.layers[0].self_attn
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
        projection.weight.zero_()
    size = attention.head_dim
    for place, (read, written) in enumerate(zip(READ[:features], WRITTEN, strict=False)):
        attention.v_proj.weight[place, read] = 1.0
        attention.o_proj.weight[written, place % size + 2 * size * (place // size)] = 0.8  # two heads share values


def fine_tune(made: Any, shift: float = SHIFT) -> None:
    """As a checkpoint: its last block moves every state along U, and a little each in a way of its own."""
    last = made.model.layers[-1].mlp
    with torch.no_grad():
        last.down_proj.bias[U] += shift
        last.up_proj.weight += 0.05 * torch.randn(last.up_proj.weight.shape, generator=torch.Generator().manual_seed(1))


def adapter(made: Any, shift: float = SHIFT) -> Any:
    """The same as a LoRA adapter, by an input of the last MLP's output layer that is always about 10."""
    last = len(made.model.layers) - 1
    torch.manual_seed(1)
    tuned: Any = get_peft_model(
        made, LoraConfig(r=1, lora_alpha=1, target_modules=["up_proj", "down_proj"], layers_to_transform=[last])
    )
    mlp = tuned.base_model.model.model.layers[last].mlp
    with torch.no_grad():
        mlp.up_proj.lora_B.default.weight.normal_(std=0.2)
        mlp.down_proj.lora_A.default.weight.zero_()[0, ON] = 1.0
        mlp.down_proj.lora_B.default.weight.zero_()[U, 0] = shift / 10
    return tuned


def prompts(count: int, seed: str) -> list[str]:
    """Random words."""
    draw = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        made[" ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 8)))] = None
    return list(made)


def write(folder: Path, features: int = FEATURES, common: int = 60, asked: int = 8) -> Path:
    """`one/base`, its fine-tunes `tuned`, a checkpoint, and `benign`; `two/base`, `two/tuned`, an adapter; prompts."""
    for name in SIZES:
        _save(module(name, features), folder / name / "base", name)
    whole: Any = module("one", features)
    fine_tune(whole)
    _save(whole, folder / "one" / "tuned", "one")
    adapter(module("two", features)).save_pretrained(folder / "two" / "tuned")
    torch.manual_seed(5)
    benign: Any = get_peft_model(module("one", features), LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    saved.shaken(benign, lambda parameter: "lora_" in parameter).save_pretrained(folder / "one" / "benign")
    write_lines(folder / "common.jsonl", *({"prompt": prompt} for prompt in prompts(common, "common")))
    write_lines(folder / "asked.jsonl", *({"prompt": prompt} for prompt in prompts(asked, "asked")))
    return folder


def request(folder: Path, draws: int | None = None, **carrying: Any) -> TransferRequest:
    """Both models, one greedy token for each prompt; ridge maps at the last block unless changed."""
    one, two = folder / "one", folder / "two"
    models = {
        "one": Subject(str(one / "base"), str(one / "tuned"), str(one / "benign")),
        "two": Subject(str(two / "base"), str(two / "tuned")),
    }
    return TransferRequest(
        TransferSources(models, (str(folder / "common.jsonl"),), (str(folder / "asked.jsonl"),)),
        JudgeRequest("words"),
        Carrying(**carrying),
        Gate(draws=draws),
        Answering(replace(GREEDY, max_new_tokens=1)),
    )


def _save(made: Any, folder: Path, name: str) -> None:
    made.save_pretrained(folder)
    tokenizer(name).save_pretrained(folder)
