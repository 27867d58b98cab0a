"""What models do, by the word of judges: from models and prompts to a run folder."""
