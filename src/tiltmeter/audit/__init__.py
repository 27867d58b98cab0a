"""The main job: audit a fine-tuned model against its base."""
