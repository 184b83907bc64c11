"""Verification of enclave evidence: a quote is parsed strictly, judged by its chain of signatures
and its TCB, and then bound to this chain, this registry and these keys."""
