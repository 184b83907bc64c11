// One job: sign, follow, verify, open, end. Everything here can be done after a reload: what matters is at the
// hub, on the chain, or in this browser's database.

import htmx from "htmx.org";
import { type Address, type Hex, encodeFunctionData, size } from "viem";
import { deliveryInfo, workDigest } from "../../../../../settlement/typescript/digests.js";
import { call, get, Refused, send } from "./api.js";
import { escrowDocument, termsMessage } from "./agreement.js";
import { VAULT, inVault, inWallet } from "./contracts.js";
import { Plain, during, element, formatUsdc, need, onAction, pause, say, sayer } from "./page.js";
import { type Check, check } from "./receipts.js";
import { type ResultKey, fileOf, find, keep, open, readFile } from "./resultkeys.js";
import type { Call, HubInfo, JobView, Offer, Settlement, SignedReceipt } from "./types.js";
import { type Wallet, readyWallet, signTypedData, signedInWallet, transact } from "./wallet.js";

export async function jobPage(): Promise<void> {
  const page = need("#job");
  const jobId = page.dataset["job"] as Hex;
  const path = `/v1/jobs/${jobId}`;
  const digest = page.dataset["keyDigest"] as Hex;

  onAction("escrow", "escrow", () => escrow(path, jobId));
  onAction("escrow-balance", "escrow", () => escrowFromBalance(path));
  for (const name of ["cancel", "refund"]) onAction(name, "calls", () => transactAbout(path, name));
  onAction("dispute", "calls", () => dispute(path, jobId));
  onAction("verify", "delivery", () => verify(path, jobId, undefined));
  onAction("open", "delivery", async () => {
    const key = await find(digest);
    if (key === undefined) throw new Plain("This browser does not have the key. Load it from the file that you saved (above).");
    await verify(path, jobId, key);
  });
  await keySection(jobId, digest);
  follow();
}

/** The page's still parts follow the part that moves. */
function follow(): void {
  const seen = (): void => {
    const live = need("#live");
    const state = live.dataset["state"];
    const stage = live.dataset["stage"];
    const unsigned = state === "QUOTED" && (stage === "UNSIGNED" || stage === "REJECTED");
    const words = need(".state", live).textContent.trim().replace(/\s+/g, " ");
    const announced = need("[data-announce]");
    // said when it changes, and not with every look
    if (announced.textContent !== words) announced.textContent = words;
    need("[data-escrow]").hidden = !unsigned;
    need("[data-delivery]").hidden = state !== "DELIVERED";
    need("[data-ending]").hidden = state === "QUOTED";
    for (const name of ["cancel", "refund"]) {
      need<HTMLButtonElement>(`[data-action="${name}"]`).hidden = live.dataset["settled"] === "yes";
    }
  };
  let unfolded: string[] = [];
  document.body.addEventListener("htmx:beforeSwap", () => {
    unfolded = Array.from(document.querySelectorAll("#live details[open]"), (each) => each.id);
  });
  document.body.addEventListener("htmx:afterSettle", () => {
    for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
    seen();
  });
  seen();
}

const refresh = (): void => void htmx.trigger(document.body, "refresh");

async function keySection(jobId: Hex, digest: Hex): Promise<void> {
  const state = need("[data-key-state]");
  const saving = need<HTMLButtonElement>('[data-action="save-key"]');
  const loading = need("[data-load-key]");
  const where = sayer("key");
  const show = (key: ResultKey | undefined): void => {
    state.textContent =
      key === undefined
        ? "This browser does not have this job's key. Nobody else has it either: load it from the file that you saved, or go on in the browser in which you made the job."
        : "The key that opens this job's weights is in this browser, and nowhere else. Save it to a file and keep the file safe: if this browser's data is cleared, nobody can open the weights.";
    saving.hidden = key === undefined;
    loading.hidden = key !== undefined;
    saving.onclick = () => {
      if (key !== undefined) download(new TextEncoder().encode(fileOf(key, jobId)), `rapha-key-${jobId.slice(2, 10)}.json`, "application/json");
    };
  };
  need<HTMLInputElement>("#key-file").addEventListener("change", (event) => {
    const file = (event.target as HTMLInputElement).files?.[0];
    if (file === undefined) return;
    void during(null, where, async () => {
      show(await keep(await readFile(await file.text(), digest)));
      say(where, "The key is here.", "good");
    });
  });
  await during(null, where, async () => show(await find(digest)));
}

function download(data: Uint8Array, name: string, type: string): void {
  const url = URL.createObjectURL(new Blob([data as BlobPart], { type }));
  const link = element("a", "", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// Money in

async function escrow(path: string, jobId: Hex): Promise<void> {
  const where = sayer("escrow");
  const goOn = (): Promise<void> => escrow(path, jobId);
  const wallet = await readyWallet(goOn);
  const [info, view, offer] = await Promise.all([get<HubInfo>("/v1/hub"), get<JobView>(path), get<Offer>(`${path}/escrow`)]);
  if (offer.stage !== "UNSIGNED" && offer.stage !== "REJECTED") return refresh();
  const has = await inWallet(wallet, info.deployment);
  if (has < BigInt(view.terms.budget)) {
    throw new Plain(
      `Your wallet holds ${formatUsdc(has)} USDC, and the budget is ${formatUsdc(BigInt(view.terms.budget))}. Nothing was signed. Add USDC to the wallet, or make a job with a smaller budget.`,
    );
  }
  const contract = await wallet.isContract();
  const document = escrowDocument(jobId, view.terms, offer, info.deployment);
  say(
    where,
    contract
      ? "Sign in your smart wallet. Its own contract is asked whether the signature counts (ERC-1271); with several owners, all of them sign within the hour…"
      : "Sign in your wallet…",
  );
  const signature = await signTypedData(wallet, document);
  if (size(signature) > 1024) throw new Plain("The smart wallet's signature is longer than the vault takes (1,024 bytes).");
  say(where, "Signed. The relayer brings it to the vault, and pays the gas…");
  try {
    const authorization = { valid_after: offer.valid_after, valid_before: offer.valid_before, signature };
    await call("POST", `${path}/escrow`, { authorization });
  } catch (error) {
    if (error instanceof Refused && error.data["oracle_code"] === "AuthorizationLate") {
      throw new Plain("Your signature came after the authorisation had run out. It can never be used, and nothing was paid. Sign a fresh one.", {
        label: "Sign again",
        act: goOn,
      });
    }
    throw error;
  }
  refresh();
  await untilInVault(path, where, goOn);
}

async function untilInVault(path: string, where: HTMLElement, goOn: () => Promise<void>): Promise<void> {
  for (;;) {
    const offer = await get<Offer>(`${path}/escrow`);
    if (offer.stage === "REJECTED") {
      throw new Plain(rejection(offer), { label: "Sign again", act: goOn });
    }
    if (offer.stage === "SETTLED") break;
    await pause(1000);
  }
  say(where, "The budget is in the vault.", "good");
  refresh();
}

function rejection(offer: Offer): string {
  const why = `${offer.reason ?? ""} ${offer.detail ?? ""}`;
  if (/expired/i.test(why)) return "The authorisation ran out before it was mined. Nothing was paid.";
  if (/balance/i.test(why)) return "Your wallet no longer holds the budget. Nothing was paid.";
  if (/signature/i.test(why)) return "USDC does not take this signature: it is not by the paying account. Nothing was paid.";
  if (/blacklist/i.test(why)) return "USDC has blocked this account. Nothing was paid.";
  return `The vault did not take it (${why.trim()}). Nothing was paid.`;
}

async function escrowFromBalance(path: string): Promise<void> {
  const where = sayer("escrow");
  const wallet = await readyWallet(() => escrowFromBalance(path));
  const [info, view] = await Promise.all([get<HubInfo>("/v1/hub"), get<JobView>(path)]);
  const { terms } = view;
  const has = await inVault(wallet, info.deployment);
  if (has < BigInt(terms.budget)) {
    throw new Plain(`Your balance at the vault is ${formatUsdc(has)} USDC, and the budget is ${formatUsdc(BigInt(terms.budget))}. Pay in on the page “Balance”, or sign from your wallet.`);
  }
  const order = {
    node_id: BigInt(terms.node_id),
    price_per_record: BigInt(terms.price_per_record),
    price_per_epoch: BigInt(terms.price_per_epoch),
    budget: BigInt(terms.budget),
    deadline: BigInt(terms.deadline),
    work: terms.work,
    salt: terms.salt,
  };
  const data = encodeFunctionData({ abi: VAULT, functionName: "open_jobs", args: [wallet.account, [order], "0x"] });
  await transact(wallet, info.deployment.vault, data, (text) => say(where, text));
  say(where, "Escrowed from your balance. It counts once the block is final.", "good");
  refresh();
}

// Ending

async function transactAbout(path: string, name: string): Promise<void> {
  const where = sayer("calls");
  const wallet = await readyWallet(() => transactAbout(path, name));
  const { calls } = await get<{ calls: Call[] }>(`${path}/calls`);
  const wanted = calls.find((each) => each.name === name);
  if (wanted === undefined) throw new Plain("This cannot be done with this job.");
  await transact(wallet, wanted.to, wanted.data, (text) => say(where, text));
  say(
    where,
    name === "cancel"
      ? "Cancelled. Work that is finished is still paid for a while; then “Take the refund” gives back the rest."
      : "Refunded: what was left is on your balance at the vault.",
    "good",
  );
  refresh();
}

async function dispute(path: string, jobId: Hex): Promise<void> {
  const where = sayer("calls");
  const wallet = await readyWallet(() => dispute(path, jobId));
  const [info, view] = await Promise.all([get<HubInfo>("/v1/hub"), get<JobView>(path)]);
  const { vault } = info.deployment;
  const job = await wallet.chain.readContract({ abi: VAULT, address: vault, functionName: "job", args: [jobId] });
  const { work: _, ...rest } = view.terms;
  const reference = {
    payer: rest.payer as Address,
    node_id: BigInt(rest.node_id),
    price_per_record: BigInt(rest.price_per_record),
    price_per_epoch: BigInt(rest.price_per_epoch),
    budget: BigInt(rest.budget),
    deadline: BigInt(rest.deadline),
    work_digest: workDigest(termsMessage(view.terms)["work"] as Parameters<typeof workDigest>[0]),
    salt: rest.salt,
  };
  const data = encodeFunctionData({ abi: VAULT, functionName: "dispute", args: [reference, job.version] });
  await transact(wallet, vault, data, (text) => say(where, text));
  say(where, "Disputed: what was freshly earned is frozen until the arbiter splits it.", "good");
  refresh();
}

// Delivery

async function verify(path: string, jobId: Hex, key: ResultKey | undefined): Promise<void> {
  const where = sayer("delivery");
  say(where, "Fetching the delivery…");
  const bytes = async (name: string): Promise<Uint8Array> =>
    new Uint8Array(await (await send("GET", `${path}/artifacts/${name}`)).arrayBuffer());
  const [info, view, metrics, evidence, receipts] = await Promise.all([
    get<HubInfo>("/v1/hub"),
    get<JobView>(path),
    bytes("metrics"),
    bytes("evidence"),
    bytes("receipts"),
  ]);
  const settlement = await get<Settlement>(`${path}/settlement`).catch(() => undefined);
  let weights: Uint8Array | undefined;
  if (key !== undefined) {
    say(where, "Opening the weights…");
    const about = deliveryInfo(BigInt(info.deployment.chain_id), info.deployment.vault, jobId);
    weights = await open(await bytes("weights"), key, about);
  }
  say(where, "Checking…");
  const signed = JSON.parse(new TextDecoder().decode(receipts)) as SignedReceipt[];
  const checks = await check(
    info.deployment,
    jobId,
    view.terms,
    signed,
    settlement,
    weights === undefined ? { metrics, evidence } : { metrics, evidence, weights },
    await chainByWallet(info.deployment.chain_id),
  );
  showChecks(checks);
  const wrong = checks.filter((each) => each.holds === false);
  // A machine for development has no sandbox; that is said, and keeps nobody from its own weights.
  const forged = wrong.filter((each) => each.claim !== "The job trained without a network");
  if (forged.length > 0) throw new Plain("Not everything holds; see below. Do not rely on this delivery.");
  const downloads = need("[data-downloads]");
  if (weights !== undefined) {
    const name = jobId.slice(2, 10);
    const files = [
      { label: `Download the weights (${weights.length.toLocaleString("en")} bytes, safetensors)`, data: weights, name: `weights-${name}.safetensors`, type: "application/octet-stream" },
      { label: "Metrics", data: metrics, name: `metrics-${name}.json`, type: "application/json" },
      { label: "Receipts", data: receipts, name: `receipts-${name}.json`, type: "application/json" },
      { label: "Evidence of isolation", data: evidence, name: `evidence-${name}.json`, type: "application/json" },
    ];
    downloads.replaceChildren(
      ...files.map((file, i) => {
        const button = element("button", file.label, { type: "button", class: i === 0 ? "primary" : "" });
        button.addEventListener("click", () => download(file.data, file.name, file.type));
        return button;
      }),
    );
  }
  const what = weights === undefined ? "The receipts hold." : "The weights are open, and they are what the enclave signed for.";
  say(where, wrong.length > 0 ? `${what} One thing does not hold: ${wrong[0]!.claim.toLowerCase()} (${wrong[0]!.why}).` : what, "good");
}

async function chainByWallet(chainId: number): Promise<Wallet | undefined> {
  try {
    const wallet = await signedInWallet(false);
    return (await wallet.chainId()) === chainId ? wallet : undefined;
  } catch {
    return undefined;
  }
}

function showChecks(checks: readonly Check[]): void {
  const list = element("ul", "", { class: "checks" });
  for (const { claim, holds, why } of checks) {
    const [kind, mark, word] = holds === undefined ? ["open", "○", "not checked"] : holds ? ["yes", "✓", "holds"] : ["no-good", "✗", "does not hold"];
    const item = element("li", "", { class: kind! });
    const sign = element("span", mark, { class: "mark", "aria-hidden": "true" });
    const text = element("strong", claim);
    text.append(element("span", `: ${word}`, { class: "hidden" }));
    item.append(sign, text, element("span", why, { class: "why" }));
    list.append(item);
  }
  need("[data-checks]").replaceChildren(list);
}
