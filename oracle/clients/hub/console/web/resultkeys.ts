// The private keys that open deliveries: made here, kept in this browser's database, saved to files.
//
// They are found by the digest of their public half, which the job's terms name.

import { CipherSuite, HkdfSha256, Aes256Gcm, DhkemX25519HkdfSha256 } from "@hpke/core";
import { type Hex, bytesToHex, hexToBytes } from "viem";
import { resultKeyDigest } from "../../../../../settlement/typescript/digests.js";
import { Plain } from "./page.js";

const FORMAT = "rapha.result-key.v1";
const suite = new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

export type ResultKey = { digest: Hex; publicKey: Hex; privateKey: Hex };

function database(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open("rapha", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("result-keys", { keyPath: "digest" });
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(new Plain("This browser keeps no data for this page (a private window?), so it could not keep your key."));
  });
}

async function inStore<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const db = await database();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = db.transaction("result-keys", mode, { durability: "strict" });
      const asked = act(transaction.objectStore("result-keys"));
      transaction.oncomplete = () => resolve(asked.result);
      transaction.onerror = () => reject(new Plain("This browser could not keep your key."));
    });
  } finally {
    db.close();
  }
}

const hex = (bytes: ArrayBuffer): Hex => bytesToHex(new Uint8Array(bytes));

/** A fresh key pair, durably kept before it is used. */
export async function makeKey(): Promise<ResultKey> {
  const pair = await suite.kem.generateKeyPair();
  const publicKey = hex(await suite.kem.serializePublicKey(pair.publicKey));
  const privateKey = hex(await suite.kem.serializePrivateKey(pair.privateKey));
  return keep({ digest: resultKeyDigest(publicKey), publicKey, privateKey });
}

export async function keep(key: ResultKey): Promise<ResultKey> {
  await inStore("readwrite", (store) => store.put(key));
  return key;
}

/** The key with this digest, if this browser has it. */
export const find = (digest: Hex): Promise<ResultKey | undefined> =>
  inStore<ResultKey | undefined>("readonly", (store) => store.get(digest));

/** What a key file says. */
export const fileOf = (key: ResultKey, jobId: Hex): string =>
  `${JSON.stringify({ format: FORMAT, job_id: jobId, public_key: key.publicKey, private_key: key.privateKey }, null, 2)}\n`;

/** The key of a file, which must be this job's. */
export async function readFile(text: string, digest: Hex): Promise<ResultKey> {
  let file: { format?: string; private_key?: Hex };
  try {
    file = JSON.parse(text) as typeof file;
  } catch {
    throw new Plain("This is not a key file of the console.");
  }
  if (file.format !== FORMAT || !/^0x[0-9a-f]{64}$/.test(file.private_key ?? "")) {
    throw new Plain("This is not a key file of the console.");
  }
  const privateKey = file.private_key!;
  const publicKey = await publicOf(privateKey);
  if (resultKeyDigest(publicKey) !== digest) throw new Plain("This key is of another job: the terms name another one.");
  return { digest, publicKey, privateKey };
}

async function publicOf(privateKey: Hex): Promise<Hex> {
  const prefix = "0x302e020100300506032b656e04220420"; // RFC 8410: a PKCS #8 X25519 key
  const pkcs8 = hexToBytes(`${prefix}${privateKey.slice(2)}`);
  const key = await crypto.subtle.importKey("pkcs8", pkcs8 as BufferSource, "X25519", true, ["deriveBits"]);
  const { x } = await crypto.subtle.exportKey("jwk", key);
  const text = atob(x!.replace(/-/g, "+").replace(/_/g, "/"));
  return bytesToHex(Uint8Array.from(text, (character) => character.charCodeAt(0)));
}

/** Open what was sealed to a key for a job: encapsulated key (32 bytes), ciphertext, tag (RFC 9180). */
export async function open(sealed: Uint8Array, key: ResultKey, info: Hex): Promise<Uint8Array> {
  const recipientKey = await suite.kem.deserializePrivateKey(bytes(hexToBytes(key.privateKey)));
  try {
    const opened = await suite.open(
      { recipientKey, enc: bytes(sealed.slice(0, 32)), info: bytes(hexToBytes(info)) },
      bytes(sealed.slice(32)),
    );
    return new Uint8Array(opened);
  } catch {
    throw new Plain("The weights do not open with this key for this job: they were made for another one, or changed on the way.");
  }
}

const bytes = (array: Uint8Array): ArrayBuffer =>
  array.buffer.slice(array.byteOffset, array.byteOffset + array.byteLength) as ArrayBuffer;
