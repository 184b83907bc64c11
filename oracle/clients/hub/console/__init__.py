"""The Secure Compute Console: the hub's pages for people.

Pages are made by the server; whatever they change goes through the same `/v1` API that programs
use. Wallets, keys and the opening of deliveries stay in the browser (`web/`).
"""
