"""Plain texts, for perplexity."""

from pathlib import Path

from tiltmeter.errors import InputError
from tiltmeter.rows import file_rows


def load_texts(path: str | Path) -> list[str]:
    """The column `text` of a JSONL, CSV or Parquet file.

    Raises:
        InputError: a file that cannot be read, or a row without a text; it names file and row.
    """
    texts = []
    for where, row in file_rows(Path(path), ("text",)):
        if not isinstance(row.get("text"), str) or not row["text"].strip():
            raise InputError(f"{where}: expected a text in column text")
        texts.append(row["text"])
    if not texts:
        raise InputError(f"{path}: expected at least one text, found none")
    return texts
