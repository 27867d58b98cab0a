"""What the model does now: answers, judges, utility loss."""
