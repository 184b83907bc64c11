"""The hub's routes: each reads a request, asks the hub, and writes the answer."""
