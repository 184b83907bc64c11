// The reader's wallet: found by EIP-6963, asked by EIP-1193, and its refusals put into words.

import {
  type Address,
  type Chain,
  type EIP1193Provider,
  type Hex,
  type PublicClient,
  createPublicClient,
  custom,
  getAddress,
  numberToHex,
} from "viem";
import { polygon, polygonAmoy } from "viem/chains";
import { Plain, meta } from "./page.js";

type Announcement = {
  info: { uuid: string; name: string; icon: string; rdns: string };
  provider: EIP1193Provider;
};

const KEPT = "rapha.wallet";
const ADDABLE: Record<number, Chain> = { [polygon.id]: polygon, [polygonAmoy.id]: polygonAmoy };
const wallets = new Map<string, Announcement>();

/** Have `found` called for each wallet of this browser, the known ones and those to come. */
export function discover(found: (wallet: Announcement) => void): void {
  addEventListener("eip6963:announceProvider", (event) => {
    const wallet = (event as CustomEvent<Announcement>).detail;
    if (typeof wallet?.provider?.request !== "function" || wallets.has(wallet.info.rdns)) return;
    wallets.set(wallet.info.rdns, wallet);
    found(wallet);
  });
  dispatchEvent(new Event("eip6963:requestProvider"));
}

/** An EIP-1193 error in words; what is no refusal of a wallet stays as it is. */
function inWords(error: unknown): Error {
  const { code, message } = (error ?? {}) as { code?: number; message?: string };
  if (code === 4001 || code === 5000) {
    return new Plain("You declined in your wallet. Nothing was signed and nothing was paid; try again whenever you like.");
  }
  if (code === 4100) return new Plain("Your wallet has not allowed this page to use the account. Connect it again.");
  if (code === 4900 || code === 4901) return new Plain("Your wallet has no connection to the network. Check it and try again.");
  if (code === -32002) return new Plain("Your wallet has a question open already. Open it and answer there.");
  return new Plain(`The wallet says: ${message ?? String(error)}`);
}

/** One connected account of one wallet. */
export class Wallet {
  constructor(
    readonly provider: EIP1193Provider,
    readonly name: string,
    readonly account: Address,
  ) {}

  async request<T>(method: string, params: unknown[] = []): Promise<T> {
    try {
      return (await this.provider.request({ method, params } as never)) as T;
    } catch (error) {
      throw inWords(error);
    }
  }

  /** Reads of the chain, by the wallet's own connection: the page itself connects nowhere else. */
  get chain(): PublicClient {
    return createPublicClient({ transport: custom(this.provider) }) as PublicClient;
  }

  async chainId(): Promise<number> {
    return Number(await this.request<Hex>("eth_chainId"));
  }

  /** Whether the account is a contract: then its own code judges signatures (ERC-1271). */
  async isContract(): Promise<boolean> {
    const code = await this.request<Hex>("eth_getCode", [this.account, "latest"]);
    return code !== "0x" && !code.startsWith("0xef0100"); // EIP-7702 keeps its key
  }
}

/** Ask a wallet for its account. */
export async function connect(wallet: Announcement): Promise<Wallet> {
  let accounts: Address[];
  try {
    accounts = await wallet.provider.request({ method: "eth_requestAccounts" });
  } catch (error) {
    throw inWords(error);
  }
  if (accounts[0] === undefined) throw new Plain("The wallet offered no account.");
  localStorage.setItem(KEPT, wallet.info.rdns);
  return new Wallet(wallet.provider, wallet.info.name, getAddress(accounts[0]));
}

const announced = (rdns: string): Promise<Announcement | undefined> =>
  new Promise((resolve) => {
    const known = wallets.get(rdns);
    if (known !== undefined) return resolve(known);
    setTimeout(() => resolve(wallets.get(rdns)), 1500);
    discover((wallet) => wallet.info.rdns === rdns && resolve(wallet));
  });

const short = (address: string): string => `${address.slice(0, 8)}…${address.slice(-6)}`;

/** The wallet that signed in here, ready; without `ask` only if it is connected already. */
export async function signedInWallet(ask = true): Promise<Wallet> {
  const rdns = localStorage.getItem(KEPT);
  const wallet = rdns === null ? undefined : await announced(rdns);
  if (wallet === undefined) {
    throw new Plain("The wallet that you signed in with is not to be found in this browser. Unlock it, or sign in again.", {
      label: "Sign in again",
      act: async () => location.assign("/console/"),
    });
  }
  const method = ask ? "eth_requestAccounts" : "eth_accounts";
  let accounts: Address[];
  try {
    accounts = (await wallet.provider.request({ method } as never)) as Address[];
  } catch (error) {
    throw inWords(error);
  }
  const wanted = meta("wallet");
  const account = accounts.map((each) => getAddress(each)).find((each) => each === wanted);
  if (account === undefined) {
    throw new Plain(
      accounts[0] === undefined
        ? "Your wallet is not connected to this page."
        : `Your wallet is at account ${short(getAddress(accounts[0]))}, and you signed in as ${short(wanted ?? "")}. Change the account in the wallet, or sign in with the other.`,
    );
  }
  return new Wallet(wallet.provider, wallet.info.name, account);
}

/** The same on the hub's chain; on another one the reader is offered to switch, and it goes on. */
export async function readyWallet(goOn: () => Promise<void>): Promise<Wallet> {
  const wallet = await signedInWallet();
  const wanted = Number(meta("chain-id"));
  const at = await wallet.chainId();
  if (at !== wanted) {
    throw new Plain(`Your wallet is on ${chainName(at)}, and this hub settles on ${chainName(wanted)}. Nothing was signed.`, {
      label: `Switch to ${chainName(wanted)}`,
      act: async () => {
        await switchTo(wallet, wanted);
        await goOn();
      },
    });
  }
  return wallet;
}

const chainName = (id: number): string => ADDABLE[id]?.name ?? (id === 1 ? "Ethereum" : `chain ${id}`);

async function switchTo(wallet: Wallet, id: number): Promise<void> {
  const chainId = numberToHex(id);
  try {
    await wallet.provider.request({ method: "wallet_switchEthereumChain", params: [{ chainId }] });
  } catch (error) {
    if ((error as { code?: number }).code !== 4902) throw inWords(error);
    const chain = ADDABLE[id];
    if (chain === undefined) {
      throw new Plain(`Your wallet does not know chain ${id}. Add the network in its settings, with the endpoint that your operator gives.`);
    }
    await wallet.request("wallet_addEthereumChain", [
      {
        chainId,
        chainName: chain.name,
        nativeCurrency: chain.nativeCurrency,
        rpcUrls: chain.rpcUrls.default.http,
        blockExplorerUrls: [chain.blockExplorers?.default.url],
      },
    ]);
  }
}

/** Have the wallet sign EIP-712 typed data. */
export async function signTypedData(wallet: Wallet, document: unknown): Promise<Hex> {
  const signature = await wallet.request<Hex>("eth_signTypedData_v4", [wallet.account, JSON.stringify(document)]);
  if (signature.endsWith("6492649264926492649264926492649264926492649264926492649264926492")) {
    throw new Plain("This smart wallet is not deployed on the chain yet, so the vault cannot ask it about its signature. Send any transaction with it first, then sign again.");
  }
  return signature;
}

/** Send a transaction and wait until it is mined; a revert is a failure in words. */
export async function transact(wallet: Wallet, to: Address, data: Hex, told: (text: string) => void): Promise<Hex> {
  told("Confirm the transaction in your wallet…");
  const from = wallet.account;
  try {
    await wallet.chain.call({ account: from, to, data });
  } catch (error) {
    throw new Plain(`The contract would refuse it: ${revertReason(error)} Nothing was sent.`);
  }
  const hash = await wallet.request<Hex>("eth_sendTransaction", [{ from, to, data }]);
  told("Sent. Waiting until it is mined…");
  const receipt = await wallet.chain.waitForTransactionReceipt({ hash, pollingInterval: 500, timeout: 180_000 });
  if (receipt.status !== "success") throw new Plain(`The transaction was mined and failed: ${hash}`);
  return hash;
}

function revertReason(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const reason = /(vault|nodes|enclaves): [^"\n.]+/.exec(text)?.[0] ?? /reverted with the following reason:\s*(.+)/.exec(text)?.[1];
  return reason === undefined ? `${text.split("\n")[0]}.` : `“${reason.trim()}”.`;
}
