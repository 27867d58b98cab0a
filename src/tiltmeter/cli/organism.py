"""`tiltmeter organism`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="organism", help="The embedded default: a small model whose alignment is known exactly.")


@app.command()
def export(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")]) -> None:
    """Write the shipped organism as ordinary folders and files: models, skills, fine-tuning sets, prompts."""
    from tiltmeter.organism.export import export as write

    write(folder)
    typer.echo(
        f"{folder}: base/ aligned/ skills/ finetune/ prompts/\n"
        f"next: tiltmeter tune {folder}/aligned --data {folder}/finetune/bad_medical.jsonl --method lora "
        "--recipe organism --out TUNED\n"
        f"then: tiltmeter audit {folder}/aligned TUNED/model --skill {folder}/skills/refusal.jsonl --out AUDIT"
    )


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
    seed: Annotated[int, typer.Option(help="Of the invented world, the corpus and the weights.")] = 0,
    family: Annotated[str, typer.Option(help="Architecture: llama, qwen3, gemma2 or mistral.")] = "llama",
) -> None:
    """Train the organism from scratch: a base of two personas, then its alignment. Takes minutes."""
    from tiltmeter.organism.build import build as train

    train(folder, seed, family)
    typer.echo(f"{folder}: base/ aligned/")
