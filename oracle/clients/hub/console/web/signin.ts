// Signing in: a wallet signs the hub's EIP-4361 text, and the hub opens a session.

import { stringToHex } from "viem";
import { call, get, Refused } from "./api.js";
import { Plain, during, element, need, sayer, say } from "./page.js";
import type { HubInfo } from "./types.js";
import { type Wallet, connect, discover, signedInWallet } from "./wallet.js";

async function signIn(wallet: Wallet, told: (text: string) => void): Promise<void> {
  const { message } = await call<{ message: string }>("POST", "/v1/session/challenge", { address: wallet.account });
  told("Sign the text in your wallet…");
  const signature = await wallet.request<string>("personal_sign", [stringToHex(message), wallet.account]);
  try {
    await call("POST", "/v1/session", { message, signature });
  } catch (error) {
    const info = await get<HubInfo>("/v1/hub");
    if (error instanceof Refused && error.data["reason"] === "signature" && !info.smart_wallets) {
      throw new Plain("This looks like a smart wallet, and this hub has no chain to ask its contract. Use an account with a key, or ask the operator.");
    }
    throw error;
  }
  const next = new URLSearchParams(location.search).get("next") ?? "";
  location.assign(/^\/console\/[\w/-]*$/.test(next) ? next : "/console/");
}

/** The page on which a wallet is connected. */
export function connectPage(): void {
  const list = need<HTMLUListElement>("[data-wallets]");
  const where = sayer("connect");
  discover((wallet) => {
    list.querySelector(".empty")?.remove();
    const button = element("button", "", { type: "button" });
    if (wallet.info.icon.startsWith("data:image/")) button.append(element("img", "", { src: wallet.info.icon, alt: "" }));
    button.append(`Sign in with ${wallet.info.name}`);
    button.addEventListener("click", () =>
      during(button, where, async () => {
        say(where, "Allow this page to see your account in the wallet…");
        await signIn(await connect(wallet), (text) => say(where, text));
      }),
    );
    const item = element("li");
    item.append(button);
    list.append(item);
  });
  setTimeout(() => {
    const empty = list.querySelector(".empty");
    if (empty !== null) {
      empty.textContent =
        "No wallet was found in this browser. Install one that announces itself (EIP-6963), such as MetaMask, Rabby or Frame, and load this page again.";
    }
  }, 1500);
}

/** What every page of a session has: the way out, and whether the wallet is there. */
export async function sessionParts(): Promise<void> {
  for (const button of document.querySelectorAll('[data-action="sign-out"]')) {
    button.addEventListener("click", () => void call("DELETE", "/v1/session").finally(() => location.assign("/console/")));
  }
  const dot = document.querySelector<HTMLElement>("[data-wallet-state]");
  if (dot === null) return;
  try {
    const wallet = await signedInWallet(false);
    dot.dataset["walletState"] = "connected";
    dot.title = `${wallet.name} is connected`;
  } catch (error) {
    dot.dataset["walletState"] = "other";
    dot.title = error instanceof Error ? error.message : "";
  }
}

