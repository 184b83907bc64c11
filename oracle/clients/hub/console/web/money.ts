// Balances at the vault, and what nodes earned: read and moved through the reader's own wallet.

import { type Hex, bytesToHex, encodeFunctionData } from "viem";
import { digest } from "../../../../../settlement/typescript/digests.js";
import { get } from "./api.js";
import { authorization, vaultOf } from "./agreement.js";
import { VAULT, inVault, inWallet } from "./contracts.js";
import { Plain, asNumber, during, formatUsdc, need, parseUsdc, say, sayer } from "./page.js";
import type { HubInfo } from "./types.js";
import { type Wallet, readyWallet, signTypedData, transact } from "./wallet.js";

const info = (): Promise<HubInfo> => get<HubInfo>("/v1/hub");

function figure(name: string, amount: bigint, within: ParentNode = document): void {
  need(`[data-figure="${name}"]`, within).textContent = formatUsdc(amount);
}

async function showBalances(wallet: Wallet): Promise<void> {
  const { deployment } = await info();
  const [vault, own] = await Promise.all([inVault(wallet, deployment), inWallet(wallet, deployment)]);
  figure("balance", vault);
  figure("wallet", own);
}

async function showEarnings(wallet: Wallet): Promise<void> {
  const { deployment } = await info();
  for (const section of document.querySelectorAll<HTMLElement>("[data-node]")) {
    const args = [BigInt(section.dataset["node"]!)] as const;
    const found = await wallet.chain.readContract({ abi: VAULT, address: deployment.vault, functionName: "earnings_of", args });
    figure("matured", found.matured, section);
    figure("fresh", found.fresh + found.earlier, section);
  }
}

/** The page of one's balance. */
export async function balancePage(): Promise<void> {
  const load = async (): Promise<void> => showBalances(await readyWallet(load));
  for (const [name, act] of [["deposit", deposit], ["withdraw", withdraw]] as const) {
    const form = need<HTMLFormElement>(`#${name}`);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = String(new FormData(form).get("amount") ?? "").trim();
      void during(event.submitter, sayer(name), () => act(text, sayer(name)));
    });
  }
  await during(null, sayer("balance"), load);
}

/** The page of what a wallet's nodes earned. */
export async function earningsPage(): Promise<void> {
  const load = async (): Promise<void> => {
    const wallet = await readyWallet(load);
    await Promise.all([showBalances(wallet), showEarnings(wallet)]);
  };
  const button = need<HTMLButtonElement>('[data-action="withdraw"]');
  button.addEventListener("click", () => void during(button, sayer("withdraw"), () => withdraw("", sayer("withdraw"))));
  for (const section of document.querySelectorAll<HTMLElement>("[data-node]")) {
    const split = need<HTMLButtonElement>('[data-action="distribute"]', section);
    const where = sayer("distribute", section);
    split.addEventListener("click", () => void during(split, where, () => distribute(section.dataset["node"]!, where)));
  }
  await during(null, sayer("balance"), load);
}

async function distribute(nodeId: string, where: HTMLElement): Promise<void> {
  const wallet = await readyWallet(() => distribute(nodeId, where));
  const { deployment } = await info();
  const data = encodeFunctionData({ abi: VAULT, functionName: "distribute", args: [BigInt(nodeId)] });
  await transact(wallet, deployment.vault, data, (text) => say(where, text));
  await Promise.all([showBalances(wallet), showEarnings(wallet)]);
  say(where, "Split: each payee can withdraw its part.", "good");
}

async function withdraw(text: string, where: HTMLElement): Promise<void> {
  const wallet = await readyWallet(() => withdraw(text, where));
  const { deployment } = await info();
  const has = await inVault(wallet, deployment);
  if (has === 0n) throw new Plain("There is nothing to take out.");
  const amount = text === "" ? has : parseUsdc(text);
  if (amount > has) throw new Plain(`There are ${formatUsdc(has)} USDC to take out.`);
  const data = encodeFunctionData({ abi: VAULT, functionName: "withdraw_to", args: [wallet.account, amount] });
  await transact(wallet, deployment.vault, data, (words) => say(where, words));
  await showBalances(wallet);
  say(where, `${formatUsdc(amount)} USDC are in your wallet.`, "good");
}

async function deposit(text: string, where: HTMLElement): Promise<void> {
  const amount = parseUsdc(text);
  if (amount === 0n) throw new Plain("Pay in more than nothing.");
  const wallet = await readyWallet(() => deposit(text, where));
  const { deployment } = await info();
  const has = await inWallet(wallet, deployment);
  if (has < amount) throw new Plain(`Your wallet holds ${formatUsdc(has)} USDC. Nothing was signed.`);
  const salt: Hex = bytesToHex(crypto.getRandomValues(new Uint8Array(32)));
  const nonce = digest(vaultOf(deployment), "Deposit", { account: wallet.account, amount, salt });
  const block = await wallet.chain.getBlock();
  const validBefore = Number(block.timestamp) + 3600;
  say(where, "Sign in your wallet…");
  const payment = { from: wallet.account, value: asNumber(amount), validAfter: 0, validBefore, nonce };
  const signature = await signTypedData(wallet, authorization(deployment, payment));
  const data = encodeFunctionData({
    abi: VAULT,
    functionName: "deposit_with_authorization",
    args: [wallet.account, amount, 0n, BigInt(validBefore), salt, signature],
  });
  await transact(wallet, deployment.vault, data, (words) => say(where, words));
  await showBalances(wallet);
  say(where, `${formatUsdc(amount)} USDC are at the vault.`, "good");
}
