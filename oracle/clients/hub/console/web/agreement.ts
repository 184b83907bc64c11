// What this browser works out itself before the wallet is asked: it trusts no digest of the hub's.

import { type Address, type Hex, getAddress } from "viem";
import * as digests from "../../../../../settlement/typescript/digests.js";
import { Plain } from "./page.js";
import type { Deployment, Offer, Policy, Profile, Terms } from "./types.js";

/** Terms as EIP-712 has them. */
export const termsMessage = (terms: Terms): digests.Message => ({
  payer: terms.payer,
  nodeId: BigInt(terms.node_id),
  pricePerRecord: BigInt(terms.price_per_record),
  pricePerEpoch: BigInt(terms.price_per_epoch),
  budget: BigInt(terms.budget),
  deadline: BigInt(terms.deadline),
  work: {
    modelDigest: terms.work.model_digest,
    datasetDigest: terms.work.dataset_digest,
    policyDigest: terms.work.policy_digest,
    resultKeyDigest: terms.work.result_key_digest,
  },
  salt: terms.salt,
});

export const vaultOf = (deployment: Deployment): digests.Domain =>
  digests.vaultDomain(BigInt(deployment.chain_id), deployment.vault);

/** The job's id, by its terms alone. */
export const jobIdOf = (terms: Terms, deployment: Deployment): Hex =>
  digests.digest(vaultOf(deployment), "JobTerms", termsMessage(terms));

export type Wanted = {
  payer: Address;
  budget: number;
  deadline: number;
  modelDigest: Hex;
  policyDigest: Hex;
  resultKeyDigest: Hex;
  nodeId: number | null;
};

/** Pass terms that are what was asked for, on what the node's profile says; else name what differs. */
export function checkTerms(jobId: Hex, terms: Terms, wanted: Wanted, profile: Profile, deployment: Deployment): void {
  const same: Record<string, boolean> = {
    payer: getAddress(terms.payer) === wanted.payer,
    node: terms.node_id === profile.node_id && (wanted.nodeId ?? terms.node_id) === terms.node_id,
    "price per record": terms.price_per_record === profile.price_per_record,
    "price per epoch": terms.price_per_epoch === profile.price_per_epoch,
    budget: terms.budget === wanted.budget,
    deadline: terms.deadline === wanted.deadline,
    model: terms.work.model_digest === wanted.modelDigest,
    dataset: terms.work.dataset_digest === profile.dataset_digest,
    "output policy": terms.work.policy_digest === wanted.policyDigest,
    "result key": terms.work.result_key_digest === wanted.resultKeyDigest,
    "job id": jobIdOf(terms, deployment) === jobId,
  };
  const differing = Object.keys(same).filter((name) => !same[name]);
  if (differing.length > 0) {
    throw new Plain(`The hub's terms are not what you asked for: ${differing.join(", ")}. Nothing was signed; tell the operator.`);
  }
}

/** The digest of the rules with a policy. */
export function policyDigestOf(rules: Record<string, string>, policy: Policy): Hex {
  const files = Object.fromEntries(
    Object.entries(rules).map(([path, text]) => [path, `0x${hexOfText(text)}` as Hex]),
  );
  return digests.policyDigest(files, canonical(policy));
}

const hexOfText = (text: string): string =>
  Array.from(new TextEncoder().encode(text), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Canonical JSON of a policy: its numbers are integers, which have one text. */
function canonical(policy: Policy): string {
  const members = Object.entries(policy).sort(([a], [b]) => (a < b ? -1 : 1));
  const text = (value: unknown): string => (typeof value === "number" ? String(value) : digests.canonicalJson(value as digests.Plain));
  return `{${members.map(([key, value]) => `${JSON.stringify(key)}:${text(value)}`).join(",")}}`;
}

/** The typed data of one payment into the vault, made here: EIP-3009 with what it is for as its nonce. */
export function authorization(
  deployment: Deployment,
  payment: { from: Address; value: number; validAfter: number; validBefore: number; nonce: Hex },
): { types: object; primaryType: string; domain: object; message: object } {
  return {
    types: {
      EIP712Domain: [
        { name: "name", type: "string" },
        { name: "version", type: "string" },
        { name: "chainId", type: "uint256" },
        { name: "verifyingContract", type: "address" },
      ],
      ...digests.TYPES.ReceiveWithAuthorization,
    },
    primaryType: "ReceiveWithAuthorization",
    domain: { name: "USD Coin", version: "2", chainId: deployment.chain_id, verifyingContract: deployment.usdc },
    message: {
      from: payment.from,
      to: deployment.vault,
      value: payment.value,
      validAfter: payment.validAfter,
      validBefore: payment.validBefore,
      nonce: payment.nonce,
    },
  };
}

/** The escrow's typed data, made here from the terms; the hub's must be the same, field for field. */
export function escrowDocument(jobId: Hex, terms: Terms, offer: Offer, deployment: Deployment): unknown {
  if (jobIdOf(terms, deployment) !== jobId) {
    throw new Plain("The job's id is not the hash of its terms. Nothing was signed; tell the operator.");
  }
  const made = authorization(deployment, {
    from: terms.payer,
    value: terms.budget,
    validAfter: offer.valid_after,
    validBefore: offer.valid_before,
    nonce: jobId,
  });
  if (sorted(made) !== sorted(offer.typed_data)) {
    throw new Plain("The hub asks for another signature than these terms need. Nothing was signed; tell the operator.");
  }
  return made;
}

function sorted(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(sorted).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const object = value as Record<string, unknown>;
  return `{${Object.keys(object).sort().map((key) => `${JSON.stringify(key)}:${sorted(object[key])}`).join(",")}}`;
}
