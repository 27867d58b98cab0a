"""Public sets of prompts by name: where they are, and how their files are read. None is shipped."""
