"""Maps that carry directions from one model's activations to another's."""
