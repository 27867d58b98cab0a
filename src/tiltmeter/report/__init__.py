"""From run folders to one self-contained HTML page."""
