"""A run folder: what went in, what came out, and the hashes of both."""
