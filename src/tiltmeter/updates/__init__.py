"""Weight space: vectors of change and how they are read from files."""
