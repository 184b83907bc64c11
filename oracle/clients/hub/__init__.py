"""The hub: developers bring jobs, nodes lease them. It holds no money, and nobody must trust it."""
