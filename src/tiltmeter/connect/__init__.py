"""What lies between a base and a fine-tune, or between two fine-tunes: from folders to a run folder."""
