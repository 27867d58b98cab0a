"""Weight space: which directions updates share, beside what chance and a common origin give, and paths between them."""
