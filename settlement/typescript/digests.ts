// Every digest that a party of a settlement signs or commits to, written anew from docs/integrators.md
// rather than from the Python: two implementations that agree on docs/vectors.json.
//
// Integers are bigint, bytes are 0x-prefixed hex, addresses are EIP-55. Needs viem and @noble/hashes.

import { blake2b } from "@noble/hashes/blake2b";
import { hmac } from "@noble/hashes/hmac";
import { sha256 as sha256Hash } from "@noble/hashes/sha2";
import {
  type Address,
  type Hex,
  concat,
  encodeAbiParameters,
  hashDomain,
  hashStruct,
  hashTypedData,
  hexToBytes,
  keccak256,
  numberToHex,
  recoverAddress,
  sha256,
  size,
  stringToBytes,
  stringToHex,
  toHex,
} from "viem";

const DOMAIN_FIELDS = [
  { name: "name", type: "string" },
  { name: "version", type: "string" },
  { name: "chainId", type: "uint256" },
  { name: "verifyingContract", type: "address" },
] as const;

const WORK = [
  { name: "modelDigest", type: "bytes32" },
  { name: "datasetDigest", type: "bytes32" },
  { name: "policyDigest", type: "bytes32" },
  { name: "resultKeyDigest", type: "bytes32" },
] as const;

const JOB_TERMS = [
  { name: "payer", type: "address" },
  { name: "nodeId", type: "uint64" },
  { name: "pricePerRecord", type: "uint64" },
  { name: "pricePerEpoch", type: "uint64" },
  { name: "budget", type: "uint64" },
  { name: "deadline", type: "uint64" },
  { name: "work", type: "Work" },
  { name: "salt", type: "bytes32" },
] as const;

/** The structs of each primary type, as `hashTypedData` and wallets take them. */
export const TYPES = {
  JobTerms: { JobTerms: JOB_TERMS, Work: WORK },
  OpenJobs: {
    OpenJobs: [{ name: "jobs", type: "JobTerms[]" }],
    JobTerms: JOB_TERMS,
    Work: WORK,
  },
  Sponsorship: {
    Sponsorship: [
      { name: "terms", type: "JobTerms" },
      { name: "sponsor", type: "address" },
    ],
    JobTerms: JOB_TERMS,
    Work: WORK,
  },
  Assignment: {
    Assignment: [
      { name: "jobId", type: "bytes32" },
      { name: "nodeId", type: "uint64" },
      { name: "epoch", type: "uint64" },
    ],
  },
  Deposit: {
    Deposit: [
      { name: "account", type: "address" },
      { name: "amount", type: "uint256" },
      { name: "salt", type: "bytes32" },
    ],
  },
  Withdrawal: {
    Withdrawal: [
      { name: "account", type: "address" },
      { name: "to", type: "address" },
      { name: "amount", type: "uint256" },
      { name: "nonce", type: "uint256" },
      { name: "deadline", type: "uint256" },
    ],
  },
  Receipt: {
    Receipt: [
      { name: "jobId", type: "bytes32" },
      { name: "records", type: "uint64" },
      { name: "epochs", type: "uint64" },
      { name: "recordsRoot", type: "bytes32" },
      { name: "outputDigest", type: "bytes32" },
      { name: "complete", type: "bool" },
    ],
  },
  EnclaveRegistration: {
    EnclaveRegistration: [
      { name: "enclaveKey", type: "address" },
      { name: "nodeId", type: "uint64" },
      { name: "measurement", type: "bytes32" },
      { name: "attestationDigest", type: "bytes32" },
      { name: "encryptionKeyDigest", type: "bytes32" },
      { name: "expiry", type: "uint64" },
      { name: "epoch", type: "uint64" },
    ],
  },
  PlatformVerdict: {
    PlatformVerdict: [
      { name: "platform", type: "bytes32" },
      { name: "nodeId", type: "uint64" },
      { name: "moduleSvn", type: "uint128" },
      { name: "expiry", type: "uint64" },
      { name: "epoch", type: "uint64" },
    ],
  },
  DeploymentRecord: { DeploymentRecord: [{ name: "digest", type: "bytes32" }] },
  Permit: {
    Permit: [
      { name: "owner", type: "address" },
      { name: "spender", type: "address" },
      { name: "value", type: "uint256" },
      { name: "nonce", type: "uint256" },
      { name: "deadline", type: "uint256" },
    ],
  },
  ReceiveWithAuthorization: {
    ReceiveWithAuthorization: [
      { name: "from", type: "address" },
      { name: "to", type: "address" },
      { name: "value", type: "uint256" },
      { name: "validAfter", type: "uint256" },
      { name: "validBefore", type: "uint256" },
      { name: "nonce", type: "bytes32" },
    ],
  },
} as const;

export type Primary = keyof typeof TYPES;

/** Names, as EIP-712 has them, to values; nested structs are messages, arrays are of messages. */
export type Message = { readonly [field: string]: unknown };

/** One EIP-712 domain per contract. */
export type Domain = {
  name: string;
  version: string;
  chainId: bigint;
  verifyingContract: Address;
};

/** The domain of terms, receipts and all that payers and payees sign. */
export const vaultDomain = (chainId: bigint, vault: Address): Domain => ({
  name: "RaphaClearingVault",
  version: "1",
  chainId,
  verifyingContract: vault,
});

/** The domain of what the committee signs about enclave keys and platforms. */
export const enclaveRegistryDomain = (chainId: bigint, registry: Address): Domain => ({
  name: "RaphaEnclaveRegistry",
  version: "1",
  chainId,
  verifyingContract: registry,
});

/** The domain of a deployment's signed record. */
export const deploymentDomain = (chainId: bigint, vault: Address): Domain => ({
  name: "RaphaDeployment",
  version: "1",
  chainId,
  verifyingContract: vault,
});

/** The domain of native USDC (Circle's FiatToken v2.2). */
export const usdcDomain = (chainId: bigint, usdc: Address): Domain => ({
  name: "USD Coin",
  version: "2",
  chainId,
  verifyingContract: usdc,
});

/** The 32-byte EIP-712 domain separator. */
export const domainSeparator = (domain: Domain): Hex =>
  hashDomain({ domain, types: { EIP712Domain: DOMAIN_FIELDS } });

/** EIP-712 `encodeType`: the struct itself, then those that it refers to, sorted by name. */
export function encodeType(primary: Primary): string {
  const structs = TYPES[primary] as Readonly<
    Record<string, readonly { name: string; type: string }[]>
  >;
  const others = Object.keys(structs)
    .filter((name) => name !== primary)
    .sort();
  return [primary, ...others]
    .map((name) => `${name}(${structs[name]!.map((f) => `${f.type} ${f.name}`).join(",")})`)
    .join("");
}

/** EIP-712 `hashStruct` of a message. */
export const structHash = (primary: Primary, message: Message): Hex =>
  hashStruct({ data: message, primaryType: primary, types: TYPES[primary] } as never);

/** What is signed: the EIP-712 digest of a message in a domain. Of `JobTerms` it is the job id. */
export const digest = (domain: Domain, primary: Primary, message: Message): Hex =>
  hashTypedData({ domain, types: TYPES[primary], primaryType: primary, message } as never);

/** `hashStruct(work)`, by which the vault names the work of a job when it settles. */
export function workDigest(work: Message): Hex {
  return hashStruct({ data: work, primaryType: "Work", types: { Work: WORK } } as never);
}

/** A 65-byte signature with its parity in the top bit of s (EIP-2098), as the vault's claims have it. */
export function compactSignature(signature: Hex): { r: Hex; vs: Hex } {
  const bytes = hexToBytes(signature);
  const v = bytes[64];
  if (bytes.length !== 65 || (v !== 27 && v !== 28)) {
    throw new Error("a signature is 65 bytes r, s, v with v 27 or 28");
  }
  const s = bytes.slice(32, 64);
  s[0] = s[0]! | ((v - 27) << 7);
  return { r: toHex(bytes.slice(0, 32)), vs: toHex(s) };
}

const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;

/** Who signed a digest. As the contracts do, it refuses signatures with s in the upper half (EIP-2). */
export async function signerOf(hash: Hex, signature: Hex): Promise<Address> {
  compactSignature(signature);
  if (BigInt(`0x${signature.slice(66, 130)}`) > HALF_ORDER) {
    throw new Error("the signature's s is in the upper half of the curve order");
  }
  return recoverAddress({ hash, signature });
}

function exactly(length: number, name: string, value: Hex): Hex {
  if (size(value) !== length) throw new Error(`the ${name} has ${size(value)} bytes, not ${length}`);
  return value;
}

/** The 64 bytes of `report_data`: binding, then the digest of the enclave's configuration. */
export function reportData(binding: {
  chainId: bigint;
  registry: Address;
  enclaveKey: Address;
  encryptionKey: Hex;
  nonce: Hex;
  configuration: Hex;
}): Hex {
  const bound = encodeAbiParameters(
    [
      { type: "bytes32" },
      { type: "uint256" },
      { type: "address" },
      { type: "address" },
      { type: "bytes32" },
      { type: "bytes32" },
    ],
    [
      keccak256(stringToBytes("rapha.enclave.v1")),
      binding.chainId,
      binding.registry,
      binding.enclaveKey,
      keccak256(exactly(32, "encryption key", binding.encryptionKey)),
      exactly(32, "nonce", binding.nonce),
    ],
  );
  return concat([keccak256(bound), exactly(32, "configuration", binding.configuration)]);
}

/** The nonce that a quote for several operators is made for: over their challenges, sorted. */
export const quoteNonce = (challenges: readonly Hex[]): Hex =>
  keccak256(concat(challenges.map((each) => each.toLowerCase() as Hex).sort()));

/** How the registry knows a platform or a CA: keccak-256 of its P-256 key's x and y. */
export const platformDigest = (x: Hex, y: Hex): Hex => keccak256(concat([x, y]));

/** The salt of one record, from the hospital's 32-byte dataset key. */
export const recordSalt = (datasetKey: Hex, recordId: Hex): Hex =>
  toHex(
    hmac(
      sha256Hash,
      hexToBytes(datasetKey),
      hexToBytes(concat([stringToHex("rapha.record.salt.v1"), recordId])),
    ),
  );

/** The commitment to one record: BLAKE2b-256 keyed by its salt. */
export function recordLeaf(salt: Hex, recordId: Hex, record: Hex): Hex {
  const person = new Uint8Array(16);
  person.set(stringToBytes("rapha.leaf.v1"));
  const content = concat([numberToHex(size(recordId), { size: 8 }), recordId, record]);
  return toHex(
    blake2b(hexToBytes(content), {
      dkLen: 32,
      key: hexToBytes(salt),
      personalization: person,
    }),
  );
}

const leafHash = (leaf: Hex): Hex => sha256(concat(["0x00", leaf]));
const pairHash = (left: Hex, right: Hex): Hex => sha256(concat(["0x01", left, right]));

/** The largest power of two below a number above 1. */
function split(count: number): number {
  let half = 1;
  while (half * 2 < count) half *= 2;
  return half;
}

/** The root over leaves in their order (RFC 6962, 2.1). */
export function merkleRoot(leaves: readonly Hex[]): Hex {
  const [first] = leaves;
  if (first === undefined) return sha256("0x");
  if (leaves.length === 1) return leafHash(first);
  const half = split(leaves.length);
  return pairHash(merkleRoot(leaves.slice(0, half)), merkleRoot(leaves.slice(half)));
}

/** Whether a leaf is the `index`-th of `count` under a root, by its audit path (RFC 6962, 2.1.1). */
export function verifyInclusion(
  leaf: Hex,
  index: number,
  count: number,
  path: readonly Hex[],
  root: Hex,
): boolean {
  const climb = (at: number, below: number, rest: readonly Hex[]): Hex | undefined => {
    if (below === 1) return rest.length === 0 ? leafHash(leaf) : undefined;
    const sibling = rest.at(-1);
    if (sibling === undefined) return undefined;
    const half = split(below);
    const own = at < half ? climb(at, half, rest.slice(0, -1)) : climb(at - half, below - half, rest.slice(0, -1));
    if (own === undefined) return undefined;
    return at < half ? pairHash(own, sibling) : pairHash(sibling, own);
  };
  return index >= 0 && index < count && climb(index, count, path) === root.toLowerCase();
}

/** What JSON holds, without numbers: those have many texts, so they are handed over as text. */
export type Plain = string | boolean | null | readonly Plain[] | { readonly [key: string]: Plain };

function byCodePoint(a: string, b: string): number {
  const [left, right] = [Array.from(a), Array.from(b)];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = left[i]!.codePointAt(0)! - right[i]!.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

const quoted = (text: string): string =>
  JSON.stringify(text).replace(
    /[^ -~]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

/** The one JSON text of a value: keys sorted by code point, no spaces, ASCII. */
export function canonicalJson(value: Plain): string {
  if (typeof value === "string") return quoted(value);
  if (value === null || typeof value === "boolean") return String(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const object = value as { readonly [key: string]: Plain };
  const members = Object.keys(object)
    .sort(byCodePoint)
    .map((key) => `${quoted(key)}:${canonicalJson(object[key]!)}`);
  return `{${members.join(",")}}`;
}

const fileHashes = (files: Readonly<Record<string, Hex>>): Record<string, string> =>
  Object.fromEntries(Object.entries(files).map(([path, data]) => [path, sha256(data).slice(2)]));

/** The digest of a model bundle, from its files' bytes by path. */
export const bundleDigest = (files: Readonly<Record<string, Hex>>): Hex =>
  keccak256(stringToBytes(canonicalJson(fileHashes(files))));

/** The digest of a policy: its rule files, and the canonical JSON text of its parameters. */
export const policyDigest = (rules: Readonly<Record<string, Hex>>, parameters: string): Hex =>
  keccak256(
    stringToBytes(`{"parameters":${parameters},"rules":${canonicalJson(fileHashes(rules))}}`),
  );

/** The digest of the X25519 key that the weights are encrypted to. */
export const resultKeyDigest = (resultKey: Hex): Hex =>
  keccak256(exactly(32, "result key", resultKey));

/** What a completing receipt commits to: weights, metrics and, where given, evidence of isolation. */
export function outputDigest(weights: Hex, metrics: Hex, evidence?: Hex): Hex {
  const parts = evidence === undefined ? [weights, metrics] : [weights, metrics, evidence];
  return keccak256(concat(parts.map((part) => sha256(part))));
}

/** HPKE `info` of a delivery (RFC 9180). */
export const deliveryInfo = (chainId: bigint, vault: Address, jobId: Hex): Hex =>
  concat([
    stringToHex("rapha.delivery.v1"),
    numberToHex(chainId, { size: 32 }),
    vault.toLowerCase() as Hex,
    exactly(32, "job id", jobId),
  ]);
