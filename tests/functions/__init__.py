"""Train functions, in files as users have them."""
