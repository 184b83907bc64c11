// The few calls of the contracts that a wallet makes from these pages.

import { encodeFunctionData, parseAbi } from "viem";
import type { Deployment } from "./types.js";
import type { Wallet } from "./wallet.js";

export const USDC = parseAbi(["function balanceOf(address) view returns (uint256)"]);
const WORK = "struct Work { bytes32 model_digest; bytes32 dataset_digest; bytes32 policy_digest; bytes32 result_key_digest; }";
const ORDER =
  "struct Order { uint256 node_id; uint256 price_per_record; uint256 price_per_epoch; uint256 budget; uint256 deadline; Work work; bytes32 salt; }";
const TERMS =
  "struct TermsRef { address payer; uint256 node_id; uint256 price_per_record; uint256 price_per_epoch; uint256 budget; uint256 deadline; bytes32 work_digest; bytes32 salt; }";
const JOB =
  "struct Job { uint256 state; uint256 sponsored; uint256 node_id; uint256 version; uint256 period; uint256 earlier; uint256 fresh; uint256 paid; uint256 funded; }";
const EARNINGS =
  "struct Earnings { uint256 matured; uint256 fresh; uint256 earlier; uint256 version; uint256 period; uint256 disputes; }";
export const VAULT = parseAbi([
  WORK,
  ORDER,
  TERMS,
  JOB,
  EARNINGS,
  "function balances(address) view returns (uint256)",
  "function withdraw() returns (uint256)",
  "function withdraw_to(address to, uint256 amount)",
  "function deposit_with_authorization(address account, uint256 amount, uint256 valid_after, uint256 valid_before, bytes32 salt, bytes signature)",
  "function open_jobs(address payer, Order[] orders, bytes signature)",
  "function dispute(TermsRef terms, uint256 version) returns (uint256)",
  "function distribute(uint256 node_id) returns (uint256)",
  "function earnings_of(uint256 node_id) view returns (Earnings)",
  "function job(bytes32 job_id) view returns (Job)",
]);
export const ENCLAVES = parseAbi([
  "struct Enclave { uint64 node_id; uint64 expiry; bytes32 measurement; bool revoked; }",
  "function enclave(address enclave_key) view returns (Enclave)",
]);

/** USDC in the wallet. */
export const inWallet = (wallet: Wallet, deployment: Deployment): Promise<bigint> =>
  wallet.chain.readContract({ abi: USDC, address: deployment.usdc, functionName: "balanceOf", args: [wallet.account] });

/** USDC that the vault holds for the wallet. */
export const inVault = (wallet: Wallet, deployment: Deployment): Promise<bigint> =>
  wallet.chain.readContract({ abi: VAULT, address: deployment.vault, functionName: "balances", args: [wallet.account] });

export { encodeFunctionData };
