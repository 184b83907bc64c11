"""Verification of TPM 2.0 evidence, without a TPM: a key is enrolled by its TPM's endorsement, its
quotes are parsed strictly and verified, and the PCRs in them are judged by the node model's policy.
"""
