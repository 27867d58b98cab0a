"""The monitor inside other people's training frameworks; each file imports its framework, and nothing imports it."""
