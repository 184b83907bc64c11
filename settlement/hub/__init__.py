"""The hub as its users see it: the models of its API, and the client of developers and nodes."""
