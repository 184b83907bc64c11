// What a delivery proves, checked here: the same claims as `rapha verify`, by the second implementation.

import { type Address, type Hex, bytesToHex } from "viem";
import * as digests from "../../../../../settlement/typescript/digests.js";
import { jobIdOf, vaultOf } from "./agreement.js";
import { ENCLAVES } from "./contracts.js";
import { formatUsdc } from "./page.js";
import type { Deployment, Receipt, Settlement, SignedReceipt, Terms } from "./types.js";
import type { Wallet } from "./wallet.js";

/** A claim: it holds, does not, or could not be looked at (undefined). */
export type Check = { claim: string; holds: boolean | undefined; why: string };

export type Delivered = { metrics: Uint8Array; evidence: Uint8Array; weights?: Uint8Array };

const message = (receipt: Receipt): digests.Message => ({
  jobId: receipt.job_id,
  records: BigInt(receipt.records),
  epochs: BigInt(receipt.epochs),
  recordsRoot: receipt.records_root,
  outputDigest: receipt.output_digest,
  complete: receipt.complete,
});

/** Every claim about a job's receipts, its payment, and its output where the weights are open. */
export async function check(
  deployment: Deployment,
  jobId: Hex,
  terms: Terms,
  signed: readonly SignedReceipt[],
  settlement: Settlement | undefined,
  delivered: Delivered,
  wallet: Wallet | undefined,
): Promise<Check[]> {
  const receipts = signed.map((each) => each.receipt);
  const foreign = receipts.filter((each) => each.job_id !== jobId).length;
  const signers = await Promise.all(
    signed.map((each) =>
      digests.signerOf(digests.digest(vaultOf(deployment), "Receipt", message(each.receipt)), each.signature).catch(() => undefined),
    ),
  );
  const key = signers[0];
  const forged = signers.filter((each) => each === undefined || each !== key).length;
  const falling = receipts.filter((each, i) => {
    const before = receipts[i - 1];
    return before !== undefined && (each.records < before.records || each.epochs < before.epochs);
  }).length;
  const last = receipts.at(-1);
  const checks: Check[] = [
    {
      claim: "The job's id is the hash of its terms",
      holds: jobIdOf(terms, deployment) === jobId,
      why: jobId,
    },
    {
      claim: "Every receipt is for these terms",
      holds: receipts.length > 0 && foreign === 0,
      why: foreign === 0 ? `${receipts.length} receipts` : `${foreign} are for another job`,
    },
    {
      claim: "Every receipt is signed by one enclave key",
      holds: signed.length > 0 && forged === 0,
      why: forged === 0 ? (key ?? "there is none") : `${forged} are not`,
    },
    await registered(deployment, terms, key, wallet),
    {
      claim: "The counters never fall",
      holds: falling === 0,
      why: last === undefined ? "no receipts" : `up to ${last.records} records and ${last.epochs} epochs`,
    },
    {
      claim: "The last receipt completes the job",
      holds: last?.complete === true,
      why: last?.complete === true ? "it commits to the output" : "there is none, or it does not",
    },
    paidCheck(terms, receipts, settlement),
  ];
  checks.push(outputCheck(last, delivered), isolationCheck(delivered.evidence));
  return checks;
}

async function registered(deployment: Deployment, terms: Terms, key: Address | undefined, wallet: Wallet | undefined): Promise<Check> {
  const claim = "The chain knows the key as an attested enclave of this node";
  if (key === undefined) return { claim, holds: false, why: "there is no signature to look at" };
  if (wallet === undefined) return { claim, holds: undefined, why: "connect your wallet: the chain is asked through it" };
  const found = await wallet.chain.readContract({
    abi: ENCLAVES,
    address: deployment.enclave_registry,
    functionName: "enclave",
    args: [key],
  });
  const holds = found.node_id === BigInt(terms.node_id) && !found.revoked;
  const until = new Date(Number(found.expiry) * 1000).toISOString().slice(0, 16).replace("T", " ");
  return { claim, holds, why: holds ? `node ${found.node_id}, until ${until} UTC` : "it is not registered for it, or was revoked" };
}

function paidCheck(terms: Terms, receipts: readonly Receipt[], settlement: Settlement | undefined): Check {
  const claim = "What was earned was paid, to the unit";
  if (settlement === undefined) return { claim, holds: undefined, why: "the oracle does not know the job's settlement yet" };
  const earned = receipts.map((each) => {
    const sum = BigInt(each.records) * BigInt(terms.price_per_record) + BigInt(each.epochs) * BigInt(terms.price_per_epoch);
    return sum < BigInt(settlement.funded) ? sum : BigInt(settlement.funded);
  });
  const most = earned.reduce((a, b) => (a > b ? a : b), 0n);
  return {
    claim,
    holds: most === BigInt(settlement.paid),
    why: `${formatUsdc(most)} USDC earned, ${formatUsdc(BigInt(settlement.paid))} paid`,
  };
}

function outputCheck(last: Receipt | undefined, delivered: Delivered): Check {
  const claim = "The delivery is what the enclave signed for";
  if (delivered.weights === undefined) return { claim, holds: undefined, why: "open the weights to see" };
  const [weights, metrics, evidence] = [delivered.weights, delivered.metrics, delivered.evidence].map((each) => bytesToHex(each));
  const found = digests.outputDigest(weights!, metrics!, evidence);
  const holds = found === last?.output_digest;
  return { claim, holds, why: holds ? found : "the output digest is another one: do not use these weights" };
}

type Evidence = {
  isolation?: string;
  namespaces?: Record<string, { job: unknown; node: unknown }>;
  network?: { interfaces: string[]; routes: unknown[] };
  seccomp?: { mode: number };
  capabilities?: number;
  no_new_privileges?: boolean;
};

function isolationCheck(text: Uint8Array): Check {
  const claim = "The job trained without a network";
  const fault = isolationFault(text);
  return { claim, holds: fault === undefined, why: fault ?? "in a sandbox of its own, inspected before it was told the job" };
}

function isolationFault(text: Uint8Array): string | undefined {
  try {
    const found = JSON.parse(new TextDecoder().decode(text)) as Evidence;
    if (found.isolation !== "bubblewrap") return `its isolation is ${String(found.isolation).slice(0, 40)}`;
    const shared = ["net", "mnt", "pid", "user", "ipc", "uts"].filter((name) => {
      const { job, node } = found.namespaces![name]!;
      return job === node;
    });
    if (shared.length > 0) return `it shared the node's namespaces: ${shared.join(", ")}`;
    const confined =
      JSON.stringify(found.network!.interfaces) === '["lo"]' &&
      found.network!.routes.length === 0 &&
      found.seccomp!.mode === 2 &&
      found.capabilities === 0 &&
      found.no_new_privileges === true;
    return confined ? undefined : "the evidence shows a network, privileges, or no filter";
  } catch {
    return "the evidence is not readable";
  }
}
