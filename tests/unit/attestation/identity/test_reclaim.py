"""A Reclaim proof counts by its attestors' signature over exactly its content, by nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from unit.attestation.identity.reclaim_proofs import (
    ATTESTOR,
    IMPOSTOR,
    NOW,
    PARAMETERS,
    PURPOSE,
    SECOND_ATTESTOR,
    WALLET,
    Claim,
    compact,
    provider,
    sign,
    template,
)

from oracle.attestation.identity.errors import (
    AttestorUnknown,
    IdentifierMismatch,
    IdentityRefused,
    ProofMalformed,
    TemplateMismatch,
    TemplateUnknown,
    TooFewAttestors,
    WalletMismatch,
)
from oracle.attestation.identity.reclaim import (
    MAX_PROOF,
    Formula,
    ReclaimProvider,
    ReclaimTemplate,
)
from oracle.attestation.identity.verify import IdentityVerifier
from settlement.errors import InvalidInput

PUBLIC_ATTESTOR = "0x244897572368Eadf65bfBc5aec98D8e5443a9072"
PUBLIC_TEMPLATE = ReclaimTemplate(
    name="kaggle-user",
    site="kaggle.com",
    provider_hash=bytes.fromhex("59f7ca945580a9570e9988a11f5683e9ba95a9445141b34200de4a96f648544a"),
    formula="2024-03",
    url="https://www.kaggle.com/api/i/users.UsersService/GetCurrentUser",
    method="POST",
    body='{"includeGroups":false,"includeLogins":false,"includeVerificationStatus":true}',
    keys=frozenset({"email", "userName"}),
    subject="userName",
)
P256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def public() -> ReclaimProvider:
    return ReclaimProvider(attestors=[PUBLIC_ATTESTOR], templates=[PUBLIC_TEMPLATE])


def vector(name: str) -> str:
    folder = Path(__file__).parents[3] / "vectors" / "attestation" / "reclaim"
    return (folder / f"{name}.json").read_text()


def test_public_valid_proof_is_genuine(public: ReclaimProvider) -> None:
    claim = public.read(vector("rust_sdk_valid"))
    assert (claim.site, claim.template) == ("kaggle.com", "kaggle-user")
    assert claim.subject == "providerreclaim"
    assert dict(claim.attributes) == {
        "email": "providers@creatoros.co",
        "userName": "providerreclaim",
    }
    assert claim.issued_at == 1728288586


def test_public_invalid_proof_is_refused(public: ReclaimProvider) -> None:
    with pytest.raises(IdentifierMismatch) as refusal:
        public.read(vector("rust_sdk_invalid"))
    assert refusal.value.claimed.endswith("a33e")
    assert refusal.value.computed.endswith("a53e")


def test_public_valid_proof_is_bound_to_no_wallet(public: ReclaimProvider) -> None:
    verifier = IdentityVerifier(
        [public], purpose="Example context message", nullifier_key=bytes(32)
    )
    with pytest.raises(WalletMismatch):
        verifier.verify("reclaim", vector("rust_sdk_valid"), wallet=WALLET, now=1728288586)


@pytest.mark.parametrize("formula", ["2025-01", "2026-04"])
def test_public_proof_of_2024_does_not_fit_a_later_formula(formula: Formula) -> None:
    later = PUBLIC_TEMPLATE.model_copy(update={"formula": formula})
    with pytest.raises(TemplateMismatch) as refusal:
        ReclaimProvider(attestors=[PUBLIC_ATTESTOR], templates=[later]).read(
            vector("rust_sdk_valid")
        )
    assert refusal.value.part == "hash"


@pytest.mark.parametrize("formula", ["2024-03", "2025-01", "2026-04"])
def test_proof_of_each_time_is_genuine(formula: Formula) -> None:
    claim = provider(template(formula)).read(Claim(formula=formula).text())
    assert claim.subject == "4711"
    assert claim.wallet == WALLET.lower()
    assert claim.purpose == PURPOSE


def test_self_signed_claim_is_refused() -> None:
    """The prover signs for itself, and lists itself as the witness."""
    forged = Claim(signers=(IMPOSTOR,)).proof()
    assert forged["witnesses"][0]["id"] == IMPOSTOR.address.lower()
    with pytest.raises(AttestorUnknown) as refusal:
        provider().read(json.dumps(forged))
    assert refusal.value.signer == IMPOSTOR.address


def test_self_signed_claim_that_lists_a_true_attestor_is_refused() -> None:
    forged = Claim(signers=(IMPOSTOR,)).proof()
    forged["witnesses"] = Claim().proof()["witnesses"]
    with pytest.raises(AttestorUnknown):
        provider().read(json.dumps(forged))


@pytest.mark.parametrize(
    "change",
    [
        {"contextAddress": IMPOSTOR.address.lower()},
        {"contextMessage": "something else"},
        {"extractedParameters": {"account": "4712", "company": "Acme"}},
        {"providerHash": "0x" + "11" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_forged_context_is_refused(change: dict[str, Any]) -> None:
    """The identifier and its signature are kept, and the context under them replaced."""
    forged = Claim().proof()
    context = {**json.loads(forged["claimData"]["context"]), **change}
    forged["claimData"]["context"] = compact(context)
    with pytest.raises(IdentifierMismatch):
        provider().read(json.dumps(forged))


def test_forged_context_with_its_own_identifier_is_refused() -> None:
    true = Claim().proof()
    forged = Claim(wallet=IMPOSTOR.address.lower()).proof()
    forged["signatures"] = true["signatures"]
    with pytest.raises(AttestorUnknown):
        provider().read(json.dumps(forged))


SIGNED = ["identifier", "provider", "parameters", "owner", "timestampS", "context", "epoch"]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to everything in a document that is no container."""
    if isinstance(value, dict):
        return [leaf for name in value for leaf in leaves(value[name], (*path, name))]
    if isinstance(value, list):
        return [leaf for i, item in enumerate(value) for leaf in leaves(item, (*path, i))]
    return [path]


def changed(value: Any, data: st.DataObject) -> Any:
    if isinstance(value, int):
        return data.draw(st.integers().filter(lambda other: other != value))
    position = data.draw(st.integers(0, max(len(value) - 1, 0)))
    kind = data.draw(st.sampled_from(["replace", "insert", "remove", "case", "other"]))
    character = data.draw(st.characters(codec="utf-8"))
    other = {
        "replace": value[:position] + character + value[position + 1 :],
        "insert": value[:position] + character + value[position:],
        "remove": value[:position] + value[position + 1 :],
        "case": value[:position] + value[position:].swapcase(),
        "other": data.draw(st.text(max_size=20)),
    }[kind]
    return other if other != value else value + " "


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_change_of_any_field_verifies(data: st.DataObject) -> None:
    proof = Claim(signers=(ATTESTOR, SECOND_ATTESTOR)).proof()
    fields = [path for path in leaves(proof) if path[0] != "witnesses"]
    assert len(fields) == 10
    path = data.draw(st.sampled_from(fields))
    holder: Any = proof
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = changed(holder[path[-1]], data)
    with pytest.raises(IdentityRefused):
        provider(threshold=2).read(json.dumps(proof))


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(["witnesses", "publicData", "taskId"]), value=st.from_type(type(None)))
def test_unsigned_members_change_nothing(name: str, value: None) -> None:
    proof = Claim().proof()
    assert provider().read(json.dumps({**proof, name: value})) == provider().read(json.dumps(proof))


@pytest.mark.parametrize("name", SIGNED)
def test_absent_field_is_refused(name: str) -> None:
    proof = Claim().proof()
    del proof["claimData"][name]
    with pytest.raises(ProofMalformed, match="claimData"):
        provider().read(json.dumps(proof))


def test_mirrored_signature_makes_no_second_proof() -> None:
    proof = Claim().proof()
    raw = bytes.fromhex(proof["signatures"][0][2:])
    mirrored = P256K1_ORDER - int.from_bytes(raw[32:64], "big")
    other = raw[:32] + mirrored.to_bytes(32, "big") + bytes([55 - raw[64]])
    proof["signatures"] = ["0x" + other.hex()]
    with pytest.raises(ProofMalformed, match="a signature is not one"):
        provider().read(json.dumps(proof))


def test_context_in_another_form_makes_no_second_proof() -> None:
    proof = Claim().proof()
    context = json.loads(proof["claimData"]["context"])
    for form in (
        json.dumps(context),
        compact(dict(reversed(context.items()))).replace('{"contextA', '{ "contextA'),
        proof["claimData"]["context"].replace("4711", "\\u0034711"),
    ):
        other = {**proof, "claimData": {**proof["claimData"], "context": form}}
        with pytest.raises(ProofMalformed, match="not in canonical form"):
            provider().read(json.dumps(other))


def test_member_that_occurs_twice_is_refused() -> None:
    context = Claim().proof()["claimData"]["context"]
    twice = context[:-1] + ',"contextAddress":"0x0"}'
    proof = sign(compact(PARAMETERS), twice, Claim().owner, NOW, (ATTESTOR,))
    with pytest.raises(ProofMalformed, match="context: a member occurs twice"):
        provider().read(json.dumps(proof))


def test_line_break_that_shifts_content_between_parts_is_refused() -> None:
    claim = Claim().proof()["claimData"]
    shifted = sign(
        f"{claim['parameters']}\n{{}}", claim["context"], Claim().owner, NOW, (ATTESTOR,)
    )
    with pytest.raises(ProofMalformed, match="a line break"):
        provider().read(json.dumps(shifted))


def test_request_that_is_not_pinned_is_refused() -> None:
    other = {**PARAMETERS, "url": "https://accounts.example.evil/api/me"}
    with pytest.raises(TemplateUnknown):
        provider().read(Claim(parameters=other).text())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"url": "https://evil.example/api/me"}, "url"),
        ({"method": "POST"}, "method"),
        ({"body": "x"}, "body"),
        ({"responseMatches": PARAMETERS["responseMatches"][:1]}, "hash"),
        ({"responseRedactions": []}, "hash"),
    ],
)
def test_pinned_hash_over_another_request_is_refused(change: dict[str, Any], part: str) -> None:
    """An attestor's word for the hash is not taken: it is computed again."""
    context = Claim().proof()["claimData"]["context"]
    parameters = compact({**PARAMETERS, **change})
    proof = sign(parameters, context, Claim().owner, NOW, (ATTESTOR,))
    with pytest.raises(TemplateMismatch) as refusal:
        provider().read(json.dumps(proof))
    assert (refusal.value.template, refusal.value.part) == ("example-account", part)


def test_body_is_pinned_where_the_formula_leaves_it_out() -> None:
    claim = Claim(formula="2024-03", parameters={**PARAMETERS, "body": "another question"})
    with pytest.raises(TemplateMismatch) as refusal:
        provider(template("2024-03")).read(claim.text())
    assert refusal.value.part == "body"


@pytest.mark.parametrize(
    ("extracted", "part"),
    [
        ({"account": "4711"}, "keys"),
        ({"account": "4711", "company": "Acme", "more": "x"}, "keys"),
        ({"account": "", "company": "Acme"}, "values"),
    ],
)
def test_other_keys_than_the_expected_are_refused(extracted: dict[str, str], part: str) -> None:
    with pytest.raises(TemplateMismatch) as refusal:
        provider().read(Claim(extracted=extracted).text())
    assert refusal.value.part == part


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({**PARAMETERS, "rootCAs": ["own"]}, "not those of an HTTP request"),
        (
            {**PARAMETERS, "additionalClientOptions": {"verifyServerCertificate": False}},
            "TLS options that are not known",
        ),
    ],
)
def test_request_with_options_of_the_provers_own_is_refused(
    parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ProofMalformed, match=reason):
        provider().read(Claim(parameters=parameters).text())


def test_protocol_version_may_be_chosen() -> None:
    options = {"additionalClientOptions": {"supportedProtocolVersions": ["TLS1_2"]}}
    assert provider().read(Claim(parameters={**PARAMETERS, **options}).text()).subject == "4711"


def test_threshold_counts_distinct_attestors() -> None:
    strict = provider(threshold=2)
    assert strict.read(Claim(signers=(ATTESTOR, SECOND_ATTESTOR)).text()).subject == "4711"
    with pytest.raises(TooFewAttestors) as refusal:
        strict.read(Claim().text())
    assert (refusal.value.found, refusal.value.needed) == (1, 2)
    with pytest.raises(ProofMalformed, match="signed twice"):
        strict.read(Claim(signers=(ATTESTOR, ATTESTOR)).text())


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", "no JSON", '{"identifier":1}', "[" * 60_000, '{"a":1,"a":1}', "1.5"],
)
def test_text_that_is_no_proof_is_refused(text: str) -> None:
    with pytest.raises(ProofMalformed):
        provider().read(text)


def test_long_proof_is_refused_unread() -> None:
    with pytest.raises(ProofMalformed) as refusal:
        provider().read(" " * (MAX_PROOF + 1))
    assert refusal.value.reason == f"longer than {MAX_PROOF} characters"


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_document_makes_the_reader_fail_otherwise(value: Any) -> None:
    proof = Claim().proof()
    honest = proof["claimData"]
    documents = [
        value,
        {**proof, "claimData": value},
        {**proof, "signatures": value},
        sign(json.dumps(value), honest["context"], honest["owner"], NOW, (ATTESTOR,)),
        sign(honest["parameters"], compact(value), honest["owner"], NOW, (ATTESTOR,)),
        Claim(parameters={**PARAMETERS, "body": value}).proof(),
    ]
    for document in documents:
        if value == "" and document is documents[-1]:
            continue  # an empty body is the honest one
        with pytest.raises(IdentityRefused):
            provider().read(json.dumps(document))


def test_refusals_show_nothing_personal() -> None:
    for claim in (Claim(extracted={"account": "4711-secret"}), Claim(signers=(IMPOSTOR,))):
        with pytest.raises(IdentityRefused) as refusal:
            provider().read(claim.text())
        assert "4711" not in str(refusal.value) + repr(vars(refusal.value))
    assert "4711" not in repr(provider().read(Claim().text()))


@pytest.mark.parametrize("threshold", [0, 3])
def test_threshold_that_cannot_be_met_is_refused(threshold: int) -> None:
    with pytest.raises(InvalidInput, match=f"2 attestors cannot give {threshold}"):
        provider(threshold=threshold)


def test_templates_of_one_hash_are_refused() -> None:
    with pytest.raises(InvalidInput, match="two templates"):
        provider(template(), template(name="again"))


@pytest.mark.parametrize(
    "change", [{"subject": "email"}, {"url": "http://plain"}, {"keys": frozenset()}, {"name": ""}]
)
def test_template_that_pins_too_little_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        template(**change)
