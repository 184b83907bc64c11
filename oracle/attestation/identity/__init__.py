"""Proofs of who somebody is, bound to a wallet: an interface, and one provider of such proofs."""
