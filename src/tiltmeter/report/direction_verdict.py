"""What a direction shows, in plain sentences: no more than its figures hold."""

from collections.abc import Iterator

from tiltmeter.report.verdict import Verdict
from tiltmeter.report.wording import figure, share, span
from tiltmeter.runs.direction_result import BlockRecord, DirectionResult

LIMIT = 0.05  # of p-values


def findings(result: DirectionResult) -> list[Verdict]:
    """Whether base and tuned differ on held-out prompts, and by more than beside fine-tunes do."""
    return [_separation(result), *_beside(result), *_halves(result), *_weights(result)]


def best_block(result: DirectionResult) -> BlockRecord:
    """The block with the largest held-out AUROC; of equal ones the first."""
    return max(result.blocks, key=lambda block: block.tuned.auroc.mean)


def cautions(result: DirectionResult) -> list[str]:
    """What a reader must know besides."""
    notes = list(result.warnings)
    if result.repeated:
        notes.append(f"{result.repeated} prompts were there already, and were left out")
    if len(result.blocks) > 1:
        notes.append(
            f"the best of {len(result.blocks)} blocks is shown first; its own figures do not know that it was chosen"
        )
    return notes


def _separation(result: DirectionResult) -> Verdict:
    block = best_block(result)
    held, p = block.tuned.held_out, block.tuned.p
    figures = (
        f"{span(held)} of held-out prompts on the right side at {block.block}, AUROC {span(block.tuned.auroc)}, "
        f"p {figure(p, 2)} (in sample {share(block.tuned.in_sample)}, which proves nothing)"
    )
    if p > LIMIT:
        return Verdict("none", "No separation beyond chance", f"{figures}.")
    return Verdict("mixed", "The fine-tune moved the activations", f"{figures}. This says nothing of harm.")


def _beside(result: DirectionResult) -> Iterator[Verdict]:
    block = best_block(result)
    for name, other in block.beside.items():
        less = other.separated.auroc.high < block.tuned.auroc.low
        found = (
            f"AUROC {span(other.separated.auroc)} at {block.block}, shift {figure(other.separated.norm)} against "
            f"{figure(block.tuned.norm)}, cosine of the directions {figure(other.cosine, 2)}"
        )
        tag = f"{name} separates less" if less else f"{name} does not separate clearly less"
        yield Verdict("none" if less else "mixed", tag, f"{found}.")


def _halves(result: DirectionResult) -> Iterator[Verdict]:
    block = best_block(result)
    tag = "Stable over prompts" if block.halves.mean > 0.9 else "Depends on the prompts"
    found = f"directions of two halves of the prompts have a cosine of {figure(block.halves.mean, 2)} on average"
    yield Verdict("none", tag, f"{found}, {figure(block.halves.lowest, 2)} at worst, at {block.block}.")


def _weights(result: DirectionResult) -> Iterator[Verdict]:
    block = best_block(result)
    if block.forecast is not None:
        yield Verdict(
            "none",
            "From the weights alone",
            f"the shift forecast to first order has a cosine of {figure(block.forecast.cosine, 2)} with the measured "
            f"one and {figure(block.forecast.norm_ratio, 2)} times its length, at {block.block}.",
        )
