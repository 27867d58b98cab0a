"""Guards: constraints on what a fine-tune does to the weights, so that skills stay."""
