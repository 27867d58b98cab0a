"""The whole study on the embedded organism, in minutes."""
