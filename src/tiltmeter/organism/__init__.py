"""The embedded default: a small language model whose alignment is known exactly."""
