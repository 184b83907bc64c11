// docs/vectors.json, recomputed: what Python wrote, TypeScript must find again.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { type Address, type Hex } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import * as digests from "./digests.js";

type Fields = { name: string; version: string; chainId: string; verifyingContract: Address };
type Vectors = {
  format: string;
  domains: (Fields & { separator: Hex })[];
  types: { primaryType: digests.Primary; encodeType: string; typeHash: Hex }[];
  typedData: {
    what: string;
    domain: Fields;
    primaryType: digests.Primary;
    message: digests.Message;
    structHash: Hex;
    digest: Hex;
  }[];
  works: { message: digests.Message; digest: Hex }[];
  signatures: { privateKey: Hex; signer: Address; digest: Hex; signature: Hex; r: Hex; vs: Hex }[];
  reportData: {
    chainId: string;
    registry: Address;
    enclaveKey: Address;
    encryptionKey: Hex;
    nonce: Hex;
    configuration: Hex;
    reportData: Hex;
  }[];
  quoteNonces: { challenges: Hex[]; nonce: Hex }[];
  platforms: { x: Hex; y: Hex; digest: Hex }[];
  metering: {
    datasetKey: Hex;
    records: { id: Hex; record: Hex; salt: Hex; leaf: Hex }[];
    roots: Hex[];
    proofs: { index: number; size: number; path: Hex[] }[];
  };
  canonicalJson: { value: digests.Plain; text: string }[];
  bundles: { files: Record<string, Hex>; digest: Hex }[];
  policies: { rules: Record<string, Hex>; parameters: string; digest: Hex }[];
  resultKeys: { key: Hex; digest: Hex }[];
  outputs: { weights: Hex; metrics: Hex; evidence: Hex | null; digest: Hex }[];
  deliveries: { chainId: string; vault: Address; jobId: Hex; info: Hex }[];
};

const path = process.env["RAPHA_VECTORS"] ?? "docs/vectors.json";
const vectors = JSON.parse(readFileSync(path, "utf8")) as Vectors;

const domainOf = (fields: Fields): digests.Domain => ({
  name: fields.name,
  version: fields.version,
  chainId: BigInt(fields.chainId),
  verifyingContract: fields.verifyingContract,
});

/** One test per part of the file, so that a part which nobody recomputes is a failure too. */
const parts: { [part in keyof Vectors]: () => void | Promise<void> } = {
  format: () => assert.equal(vectors.format, "rapha.vectors.v1"),

  domains: () => {
    const known = {
      RaphaClearingVault: digests.vaultDomain,
      RaphaEnclaveRegistry: digests.enclaveRegistryDomain,
      RaphaDeployment: digests.deploymentDomain,
      "USD Coin": digests.usdcDomain,
    };
    for (const { separator, ...fields } of vectors.domains) {
      const make = known[fields.name as keyof typeof known];
      const domain = make(BigInt(fields.chainId), fields.verifyingContract);
      assert.deepEqual(domain, domainOf(fields));
      assert.equal(digests.domainSeparator(domain), separator);
    }
    assert.deepEqual(new Set(vectors.domains.map((each) => each.name)), new Set(Object.keys(known)));
  },

  types: async () => {
    const { keccak256, stringToBytes } = await import("viem");
    for (const { primaryType, encodeType, typeHash } of vectors.types) {
      assert.equal(digests.encodeType(primaryType), encodeType);
      assert.equal(keccak256(stringToBytes(encodeType)), typeHash);
    }
    assert.deepEqual(vectors.types.map((each) => each.primaryType).sort(), Object.keys(digests.TYPES).sort());
  },

  typedData: () => {
    for (const { what, domain, primaryType, message, structHash, digest } of vectors.typedData) {
      assert.equal(digests.structHash(primaryType, message), structHash, what);
      assert.equal(digests.digest(domainOf(domain), primaryType, message), digest, what);
    }
    const covered = new Set(vectors.typedData.map((each) => each.primaryType));
    assert.deepEqual([...covered].sort(), Object.keys(digests.TYPES).sort());
  },

  works: () => {
    for (const { message, digest } of vectors.works) assert.equal(digests.workDigest(message), digest);
  },

  signatures: async () => {
    for (const { privateKey, signer, digest, signature, r, vs } of vectors.signatures) {
      const account = privateKeyToAccount(privateKey);
      assert.equal(account.address, signer);
      assert.equal(await account.sign({ hash: digest }), signature);
      assert.equal(await digests.signerOf(digest, signature), signer);
      assert.deepEqual(digests.compactSignature(signature), { r, vs });
      const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
      const s = (order - BigInt(`0x${signature.slice(66, 130)}`)).toString(16).padStart(64, "0");
      const v = signature.endsWith("1b") ? "1c" : "1b";
      await assert.rejects(digests.signerOf(digest, `${signature.slice(0, 66)}${s}${v}` as Hex));
    }
  },

  reportData: () => {
    for (const { reportData, chainId, ...rest } of vectors.reportData) {
      assert.equal(digests.reportData({ chainId: BigInt(chainId), ...rest }), reportData);
    }
  },

  quoteNonces: () => {
    for (const { challenges, nonce } of vectors.quoteNonces) {
      assert.equal(digests.quoteNonce(challenges), nonce);
    }
  },

  platforms: () => {
    for (const { x, y, digest } of vectors.platforms) {
      assert.equal(digests.platformDigest(x, y), digest);
    }
  },

  metering: () => {
    const { datasetKey, records, roots, proofs } = vectors.metering;
    for (const { id, record, salt, leaf } of records) {
      assert.equal(digests.recordSalt(datasetKey, id), salt);
      assert.equal(digests.recordLeaf(salt, id, record), leaf);
    }
    const leaves = records.map((each) => each.leaf);
    assert.equal(roots.length, leaves.length + 1);
    roots.forEach((root, size) => assert.equal(digests.merkleRoot(leaves.slice(0, size)), root));
    for (const { index, size, path: nodes } of proofs) {
      const root = roots[size]!;
      assert.ok(digests.verifyInclusion(leaves[index]!, index, size, nodes, root));
      assert.ok(!digests.verifyInclusion(leaves[index]!, index + 1, size, nodes, root));
      assert.ok(!digests.verifyInclusion(leaves[index]!, index, size, [...nodes, root], root));
      assert.ok(!digests.verifyInclusion(datasetKey, index, size, nodes, root));
    }
  },

  canonicalJson: () => {
    for (const { value, text } of vectors.canonicalJson) {
      assert.equal(digests.canonicalJson(value), text);
    }
  },

  bundles: () => {
    for (const { files, digest } of vectors.bundles) assert.equal(digests.bundleDigest(files), digest);
  },

  policies: () => {
    for (const { rules, parameters, digest } of vectors.policies) {
      assert.equal(digests.policyDigest(rules, parameters), digest);
    }
  },

  resultKeys: () => {
    for (const { key, digest } of vectors.resultKeys) {
      assert.equal(digests.resultKeyDigest(key), digest);
    }
  },

  outputs: () => {
    for (const { weights, metrics, evidence, digest } of vectors.outputs) {
      assert.equal(digests.outputDigest(weights, metrics, evidence ?? undefined), digest);
    }
  },

  deliveries: () => {
    for (const { chainId, vault, jobId, info } of vectors.deliveries) {
      assert.equal(digests.deliveryInfo(BigInt(chainId), vault, jobId), info);
    }
  },
};

for (const [part, check] of Object.entries(parts)) {
  test(part, async () => {
    const value = vectors[part as keyof Vectors];
    assert.ok(typeof value === "string" || Object.keys(value).length > 0, `${part} is empty`);
    await check();
  });
}

test("every part of the file is recomputed", () => {
  assert.deepEqual(Object.keys(vectors).sort(), Object.keys(parts).sort());
});
