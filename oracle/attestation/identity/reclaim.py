"""Identity proofs of the Reclaim Protocol.

A prover runs a TLS session with a site through an attestor, which sees the encrypted traffic and is
shown, by a proof in zero knowledge, the part of the answer that the request's template names. If
that matches, the attestor signs: identifier of the claim, owner, time, epoch (EIP-191). The
identifier is keccak-256 of provider, parameters (the request as it was made) and canonical context
(what was found, the wallet, the message and the hash of the request's template).

So the proof stands and falls with the attestors: one pinned attestor's key can sign anything. With
a `threshold` of two or more, that many would have to lie together. The zero knowledge protects the
prover's secrets from the attestor; this verifier sees no part of it.

Not read, since nobody signed it: the list of witnesses, `publicData`, and whatever else is there.
Headers are in the parameters and signed, but the prover's to choose.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeVar

from eth_utils.crypto import keccak
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from oracle.attestation.identity.canonical import canonical_json, parse_strictly
from oracle.attestation.identity.errors import (
    AttestorUnknown,
    IdentifierMismatch,
    ProofMalformed,
    TemplateMismatch,
    TemplateUnknown,
    TooFewAttestors,
)
from oracle.attestation.identity.verify import ProvenClaim
from settlement.eip712 import recover_signer
from settlement.errors import InvalidInput, InvalidSignature
from settlement.types import Address, Bytes32, Frozen, to_hex

MAX_PROOF = 1 << 16
"""Characters of a proof."""

Formula = Literal["2024-03", "2025-01", "2026-04"]
"""How attestors hash a request, by the month in which they began to: with the location and without
the body; with the body; with the body and with every absent part given its default."""

_PARAMETERS = frozenset(
    {
        "url",
        "method",
        "body",
        "headers",
        "geoLocation",
        "proxySessionId",
        "writeRedactionMode",
        "additionalClientOptions",
        "responseMatches",
        "responseRedactions",
        "paramValues",
    }
)
_HEX32 = r"^0x[0-9a-f]{64}$"


class ReclaimTemplate(Frozen):
    """One request whose answer proves an account, as an operator has read and pinned it.

    `url`, `method` and `body` are the request's, with its `{{parameters}}`. `keys` are exactly the
    values that its answer must yield, and `subject` the one that names the account at `site` for
    good (an account number, rather than a name that can be given up and taken).
    """

    name: str = Field(min_length=1)
    site: str = Field(min_length=1)
    provider_hash: Bytes32
    formula: Formula
    url: str = Field(pattern=r"^https://")
    method: Literal["GET", "POST", "PUT", "PATCH"] = "GET"
    body: str = ""
    keys: frozenset[str] = Field(min_length=1)
    subject: str

    @model_validator(mode="after")
    def _check(self) -> "ReclaimTemplate":
        if self.subject not in self.keys:
            raise ValueError("the subject is not among the keys")
        return self


class ReclaimProvider:
    """Reads Reclaim proofs against pinned attestors and templates."""

    name = "reclaim"

    def __init__(
        self,
        *,
        attestors: Collection[Address],
        templates: Sequence[ReclaimTemplate],
        threshold: int = 1,
    ) -> None:
        """`attestors` are addresses; `threshold` of them must have signed.

        Raises:
            InvalidInput: when the threshold cannot be met or two templates have one hash.
        """
        self._attestors = frozenset(attestor.lower() for attestor in attestors)
        if not 1 <= threshold <= len(self._attestors):
            raise InvalidInput(f"{len(self._attestors)} attestors cannot give {threshold}")
        self._threshold = threshold
        self._templates = {template.provider_hash: template for template in templates}
        if len(self._templates) != len(templates):
            raise InvalidInput("two templates have the same provider hash")

    def read(self, proof: str) -> ProvenClaim:
        """Check identifier, signatures and template of a proof, given as its JSON text.

        Raises:
            ProofMalformed: when it is not one, or is written in another than its one way.
            IdentifierMismatch: when its content is not what it is called.
            AttestorUnknown, TooFewAttestors: when the pinned attestors did not sign it.
            TemplateUnknown, TemplateMismatch: when it is not about a pinned request.
        """
        claim, signatures = _parse(proof)
        context = _context(claim.context)
        identifier = _identifier(claim)
        if claim.identifier != identifier:
            raise IdentifierMismatch(claim.identifier, identifier)
        self._check_signatures(claim, signatures)
        template = self._check_template(claim, context)
        return ProvenClaim(
            site=template.site,
            template=template.name,
            subject=context.extracted[template.subject],
            attributes=context.extracted,
            wallet=context.wallet,
            purpose=context.message,
            issued_at=claim.timestamp,
            digest=keccak(_signed_text(claim).encode()),
        )

    def _check_signatures(self, claim: "_Claim", signatures: Sequence[str]) -> None:
        text = _signed_text(claim).encode()
        digest = keccak(b"\x19Ethereum Signed Message:\n" + str(len(text)).encode() + text)
        signers = set()
        for signature in signatures:
            try:
                signer = recover_signer(digest, bytes.fromhex(signature[2:]))
            except InvalidSignature as error:
                raise ProofMalformed("a signature is not one") from error
            if signer.lower() not in self._attestors:
                raise AttestorUnknown(signer)
            signers.add(signer)
        if len(signers) != len(signatures):
            raise ProofMalformed("an attestor signed twice")
        if len(signers) < self._threshold:
            raise TooFewAttestors(len(signers), self._threshold)

    def _check_template(self, claim: "_Claim", context: "_Context") -> ReclaimTemplate:
        template = self._templates.get(bytes.fromhex(context.provider_hash[2:]))
        if template is None:
            raise TemplateUnknown(context.provider_hash)
        parameters = _parameters(claim.parameters)
        for part, found, pinned in [
            ("url", parameters["url"], template.url),
            ("method", parameters["method"], template.method),
            ("body", parameters.get("body") or "", template.body),
            ("keys", frozenset(context.extracted), template.keys),
            ("hash", provider_hash(parameters, template.formula), template.provider_hash),
        ]:
            if found != pinned:
                raise TemplateMismatch(template.name, part)
        if not all(context.extracted.values()):
            raise TemplateMismatch(template.name, "values")
        return template


def provider_hash(parameters: dict[str, Any], formula: Formula) -> bytes:
    """The hash of a request's template by the formula that attestors used at a time.

    Raises:
        ProofMalformed: when a part does not have its form.
    """
    if formula == "2026-04":
        matches = _parts(parameters, "responseMatches")
        redactions = _parts(parameters, "responseRedactions")
        request: dict[str, Any] = {
            "url": parameters["url"],
            "method": parameters["method"],
            "body": parameters.get("body") or "",
            "responseMatches": [
                {**_given(match, "value", "type"), **_if_set(match, "invert")} for match in matches
            ],
            "responseRedactions": [
                {
                    **{name: part.get(name) or "" for name in ("xPath", "jsonPath", "regex")},
                    **_if_set(part, "hash"),
                }
                for part in redactions
            ],
        }
    else:
        last = "geoLocation" if formula == "2024-03" else "body"
        request = _given(parameters, "url", "method", "responseMatches", "responseRedactions", last)
    return keccak(canonical_json(request).encode())


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Claim(_Strict):
    provider: Literal["http"]
    parameters: str
    owner: str = Field(pattern=r"^0x[0-9a-f]{40}$")
    timestamp: int = Field(alias="timestampS", ge=0, lt=2**53)
    context: str
    identifier: str = Field(pattern=_HEX32)
    epoch: int = Field(ge=1, lt=2**53)


class _Proof(_Strict):
    identifier: str = Field(pattern=_HEX32)
    claim: _Claim = Field(alias="claimData")
    signatures: list[str] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _check(self) -> "_Proof":
        if self.identifier != self.claim.identifier:
            raise ValueError("it has two identifiers")
        return self


class _Context(_Strict):
    wallet: str = Field(alias="contextAddress")
    message: str = Field(alias="contextMessage")
    extracted: dict[str, str] = Field(alias="extractedParameters")
    provider_hash: str = Field(alias="providerHash", pattern=_HEX32)


Model = TypeVar("Model", bound=_Strict)


def _parse(proof: str) -> tuple[_Claim, list[str]]:
    if len(proof) > MAX_PROOF:
        raise ProofMalformed(f"longer than {MAX_PROOF} characters")
    parsed = _model(_Proof, proof, "proof")
    for signature in parsed.signatures:
        if len(signature) != 132 or not signature.startswith("0x") or not _is_hex(signature[2:]):
            raise ProofMalformed("a signature is not 65 bytes of lower-case hex")
    return parsed.claim, parsed.signatures


def _context(text: str) -> _Context:
    context = _model(_Context, text, "context")
    # Its canonical form is what is signed: any other way to write it would be a second proof.
    if canonical_json(parse_strictly(text)) != text:
        raise ProofMalformed("the context is not in canonical form")
    return context


def _parameters(text: str) -> dict[str, Any]:
    try:
        parameters = parse_strictly(text)
    except ValueError as error:
        raise ProofMalformed(f"parameters: {error}") from error
    if not isinstance(parameters, dict) or not {"url", "method"} <= set(parameters) <= _PARAMETERS:
        raise ProofMalformed("parameters: not those of an HTTP request")
    options = parameters.get("additionalClientOptions") or {}
    if not isinstance(options, dict) or not set(options) <= {"supportedProtocolVersions"}:
        raise ProofMalformed("parameters: TLS options that are not known")
    return parameters


def _model(model: type[Model], text: str, name: str) -> Model:
    try:
        return model.model_validate(parse_strictly(text))
    except ValidationError as error:
        # Only places, since values may be personal data.
        where = ", ".join(".".join(map(str, part["loc"])) or "whole" for part in error.errors())
        raise ProofMalformed(f"{name}: invalid {where}") from error
    except ValueError as error:
        raise ProofMalformed(f"{name}: {error}") from error


def _identifier(claim: _Claim) -> str:
    if "\n" in claim.parameters:
        raise ProofMalformed("parameters: a line break, which separates what is hashed")
    return to_hex(keccak(text=f"{claim.provider}\n{claim.parameters}\n{claim.context}"))


def _signed_text(claim: _Claim) -> str:
    return f"{claim.identifier}\n{claim.owner}\n{claim.timestamp}\n{claim.epoch}"


def _parts(parameters: dict[str, Any], name: str) -> list[dict[str, Any]]:
    parts = parameters.get(name) or []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise ProofMalformed(f"parameters: {name} is not a list of objects")
    return parts


def _given(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _if_set(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: values[name]} if values.get(name) else {}


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)
