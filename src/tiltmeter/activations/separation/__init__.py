"""How well a direction separates two models' activations, on prompts that it was not found on."""
