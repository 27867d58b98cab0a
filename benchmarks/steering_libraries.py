"""Three public libraries, each around a model of its own: reading the outputs of blocks, and adding vectors to them.

Imported by peers_steering.py, in an interpreter that has some of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from activations_cost import ANSWERS_BATCH, BATCH, Work, answers
from torch import Tensor

from tiltmeter.generation import plan_batches
from tiltmeter.likelihood import logits_at
from tiltmeter.models import Model
from tiltmeter.tokens import Batch

Blocks = list[Tensor]
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Peer:
    """One library around a model.

    Attributes:
        states: the outputs of every block [B, d] of a batch at given places [B].
        steered: answers with a vector added at each block to every token.
        train: the library's own difference in means over pairs of texts, where it has one.
    """

    states: Callable[[Batch, Tensor], Blocks]
    steered: Callable[[Blocks], list[list[int]]]
    train: Callable[[Pairs], Blocks] | None = None


def steering_vectors(model: Model, work: Work) -> Peer:
    """Copies whole hidden states by a hook at each block; adds its vectors by hooks too, here around our generation."""
    import steering_vectors as library

    def states(batch: Batch, places: Tensor) -> Blocks:
        with library.record_activations(model.module) as record:
            logits_at(model.module, batch, torch.tensor([batch.ids.shape[1] - 1]))
        return [record[block][0][torch.arange(len(places)), places] for block in sorted(record)]

    def steered(vectors: Blocks) -> list[list[int]]:
        with library.SteeringVector(dict(enumerate(vectors))).apply(model.module):
            return answers(model, work.answered(), work.new_tokens)

    def train(pairs: Pairs) -> Blocks:
        found = library.train_steering_vector(model.module, model.tokenizer, pairs, batch_size=BATCH)
        return [found.layer_activations[block] for block in sorted(found.layer_activations)]

    return Peer(states, steered, train)


def nnsight(model: Model, work: Work) -> Peer:
    """Runs the body of a `with` block in turns with the model's pass, at each module that the body names."""
    from nnsight.modeling.transformers import TransformersModel

    lens = TransformersModel(model.module, tokenizer=model.tokenizer, task="text-generation")

    def states(batch: Batch, places: Tensor) -> Blocks:
        inputs = {"input_ids": batch.ids, "attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
        rows = torch.arange(len(places))
        with lens.trace(**inputs, use_cache=False, logits_to_keep=1):
            found = []
            for block in lens.model.layers:
                found.append(block.output[rows, places])
            found.save()
        return found

    def steered(vectors: Blocks) -> list[list[int]]:
        return in_batches(model, work, partial(batch, vectors))

    def batch(vectors: Blocks, ids: Tensor, mask: Tensor) -> Tensor:
        how = {"max_new_tokens": work.new_tokens, "do_sample": False}
        with lens.generate(input_ids=ids, attention_mask=mask, **how) as tracer:
            for _ in tracer.iter[: work.new_tokens]:
                for block, vector in zip(lens.model.layers, vectors, strict=True):
                    block.output = block.output + vector
            found = tracer.result.save()
        return found

    return Peer(states, steered)


def transformer_lens(model: Model, work: Work) -> Peer:
    """Wraps every module in hook points; attention is not fused, and generation is a loop of its own."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        "random", hf_model=model.module, tokenizer=model.tokenizer, device="cpu"
    )
    names = [f"blocks.{index}.hook_out" for index in range(len(model.blocks))]

    def states(batch: Batch, places: Tensor) -> Blocks:
        how = {"attention_mask": batch.attention_mask, "names_filter": names, "return_type": None}
        _, cache = bridge.run_with_cache(batch.ids, **how)
        return [cache[name][torch.arange(len(places)), places] for name in names]

    def steered(vectors: Blocks) -> list[list[int]]:
        hooks = [(name, partial(added_by_hook, vector)) for name, vector in zip(names, vectors, strict=True)]
        with bridge.hooks(fwd_hooks=hooks):
            return in_batches(model, work, batch)

    def batch(ids: Tensor, mask: Tensor) -> Tensor:
        how = {"do_sample": False, "stop_at_eos": False, "return_type": "tokens", "verbose": False}
        found: Tensor = bridge.generate(ids, work.new_tokens, attention_mask=mask, **how)
        return found

    return Peer(states, steered)


def added_by_hook(vector: Tensor, states: Tensor, hook: object) -> Tensor:
    """A hook of transformer-lens."""
    return states + vector


def in_batches(model: Model, work: Work, generate: Callable[[Tensor, Tensor], Tensor]) -> list[list[int]]:
    """Answers to the batches of our generation, padded on the left, by a function of ids and attention mask."""
    prompts = work.answered()
    found: list[list[int]] = [[] for _ in prompts]
    for draws in plan_batches(prompts, ANSWERS_BATCH):
        rows = [row for row, _ in draws]
        group = {"input_ids": [prompts[row] for row in rows]}
        padded = model.tokenizer.pad(group, padding_side="left", return_tensors="pt")
        output = generate(padded["input_ids"], padded["attention_mask"])[:, padded["input_ids"].shape[1] :]
        for row, new in zip(rows, output.tolist(), strict=True):
            found[row] = new
    assert all(len(answer) == work.new_tokens for answer in found), "an answer ended early: the work is not the same"
    return found


PEERS = {"steering-vectors": steering_vectors, "nnsight": nnsight, "transformer-lens": transformer_lens}
