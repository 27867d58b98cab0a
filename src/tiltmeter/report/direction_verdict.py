"""What a direction shows, in plain sentences: no more than its figures hold."""

from collections.abc import Iterator

from tiltmeter.report.verdict import Verdict
from tiltmeter.report.wording import figure, span
from tiltmeter.runs.direction_result import BlockRecord, DirectionResult, MeansSeparated

LIMIT = 0.05  # of p-values
STABLE = 0.9  # cosine of halves


def findings(result: DirectionResult) -> list[Verdict]:
    """Whether base and tuned differ on held-out prompts, and by more than beside fine-tunes do."""
    return [_separation(result), *_beside(result), _halves(result), *_weights(result)]


def best_block(result: DirectionResult, beside: str | None = None) -> BlockRecord:
    """The block with the largest held-out AUROC of the tuned model, or of one beside it; of equal ones the first."""
    return max(result.blocks, key=lambda block: _of(block, beside).auroc.mean)


def cautions(result: DirectionResult) -> list[str]:
    """What a reader must know besides."""
    notes = list(result.warnings)
    if result.repeated:
        notes.append(f"{result.repeated} of {result.prompts + result.repeated} prompts repeat others and were left out")
    if len(result.blocks) > 1:
        notes.append(
            f"the sentences above are of the best of {len(result.blocks)} blocks; their p allows for that choice, the "
            "intervals and the p of each block do not"
        )
    return notes


def _separation(result: DirectionResult) -> Verdict:
    block = best_block(result)
    found = block.tuned
    figures = (
        f"Balanced accuracy {span(found.held_out, 2)} on held-out prompts at {block.block}, "
        f"AUROC {span(found.auroc, 2)}, p {figure(result.best_p, 2)}{_over(result)}; "
        f"{figure(found.in_sample, 2)} in sample, which proves nothing."
    )
    if result.best_p > LIMIT:
        return Verdict("none", "No separation beyond chance", figures)
    return Verdict("mixed", "The fine-tune moved the activations", f"{figures} This says nothing of harm.")


def _over(result: DirectionResult) -> str:
    return f" over {len(result.blocks)} blocks" if len(result.blocks) > 1 else ""


def _beside(result: DirectionResult) -> Iterator[Verdict]:
    """Each at the best block of its own, as the tuned model is."""
    block = best_block(result)
    for name in result.beside:
        best, here = best_block(result, name), block.beside[name]
        auroc = _of(best, name).auroc
        less = auroc.high < block.tuned.auroc.low
        sentence = (
            f"AUROC {span(auroc, 2)} at {best.block}, against {span(block.tuned.auroc, 2)} of tuned. At {block.block} "
            f"its shift is {figure(here.separated.norm)} long, that of tuned {figure(block.tuned.norm)}; their cosine "
            f"is {figure(here.cosine, 2)}."
        )
        tag = f"{name} separates less" if less else f"{name} does not separate clearly less"
        yield Verdict("none" if less else "mixed", tag, sentence)


def _of(block: BlockRecord, beside: str | None) -> MeansSeparated:
    return block.tuned if beside is None else block.beside[beside].separated


def _halves(result: DirectionResult) -> Verdict:
    block = best_block(result)
    sentence = (
        f"Directions of two halves of the prompts have a cosine of {figure(block.halves.mean, 2)} on average, "
        f"{figure(block.halves.lowest, 2)} at worst, at {block.block}."
    )
    if block.halves.mean > STABLE:
        return Verdict("none", "Stable over prompts", sentence)
    return Verdict("mixed", "Depends on the prompts", sentence)


def _weights(result: DirectionResult) -> Iterator[Verdict]:
    block = best_block(result)
    if block.forecast is not None:
        yield Verdict(
            "none",
            "From the weights alone",
            f"The shift forecast to first order has a cosine of {figure(block.forecast.cosine, 2)} with the measured "
            f"one and {figure(block.forecast.norm_ratio, 2)} times its length, at {block.block}.",
        )
