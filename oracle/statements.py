"""What the committee signs: an enclave key's registration, or a verdict on its platform."""

from pydantic import TypeAdapter

from settlement.eip712 import Domain, registration_digest, verdict_digest
from settlement.models import EnclaveRegistration, PlatformVerdict

Statement = EnclaveRegistration | PlatformVerdict

_STATEMENT: TypeAdapter[Statement] = TypeAdapter(Statement)


def statement_digest(statement: Statement, registry: Domain) -> bytes:
    """The EIP-712 digest that members sign, in the enclave registry's domain."""
    if isinstance(statement, PlatformVerdict):
        return verdict_digest(statement, registry)
    return registration_digest(statement, registry)


def parse_statement(text: str) -> Statement:
    """A statement from the JSON that it was stored as."""
    return _STATEMENT.validate_json(text)
