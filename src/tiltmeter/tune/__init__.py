"""Fine-tunes a model, with its skills watched and guarded."""
