// What the hub's API answers, as far as the console reads it (see its OpenAPI document).

import type { Address, Hex } from "viem";

export type Deployment = {
  chain_id: number;
  vault: Address;
  node_registry: Address;
  enclave_registry: Address;
  usdc: Address;
};
export type HubInfo = { deployment: Deployment; smart_wallets: boolean; max_bundle_bytes: number };

export type Terms = {
  payer: Address;
  node_id: number;
  price_per_record: number;
  price_per_epoch: number;
  budget: number;
  deadline: number;
  work: { model_digest: Hex; dataset_digest: Hex; policy_digest: Hex; result_key_digest: Hex };
  salt: Hex;
};
export type Stage = "UNSIGNED" | "WAITING" | "ACCEPTED" | "SUBMITTED" | "SETTLED" | "REJECTED";
export type Offer = {
  typed_data: unknown;
  valid_after: number;
  valid_before: number;
  stage: Stage;
  reason: string | null;
  detail: string | null;
};
export type JobView = { job_id: Hex; terms: Terms; state: string };
export type JobCreated = { job_id: Hex; terms: Terms };
export type Policy = {
  min_records: number;
  max_output_bytes: number;
  max_tensors: number;
  allowed_dtypes: string[];
  allowed_metrics: string[];
};
export type Profile = {
  node_id: number;
  dataset_digest: Hex;
  modality: string;
  price_per_record: number;
  price_per_epoch: number;
};
export type Upload = {
  upload_id: Hex;
  length: number;
  offset: number;
  bundle: { digest: Hex; framework: string; entry_point: string; files: Record<string, number> } | null;
  fault: { reason: string; detail: string; path: string | null } | null;
};
export type Receipt = {
  job_id: Hex;
  records: number;
  epochs: number;
  records_root: Hex;
  output_digest: Hex;
  complete: boolean;
};
export type SignedReceipt = { receipt: Receipt; signature: Hex };
export type Settlement = { state: string; funded: number; paid: number; refunded: number };
export type Call = { name: string; to: Address; data: Hex; chain_id: number; explanation: string };
