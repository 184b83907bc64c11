// What every page needs of the document: finding things, saying things, and being busy.

/** The one element that must be there. */
export function need<T extends Element = HTMLElement>(selector: string, within: ParentNode = document): T {
  const found = within.querySelector<T>(selector);
  if (found === null) throw new Error(`the page has no ${selector}`);
  return found;
}

export const meta = (name: string): string | undefined =>
  document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content;

/** An element with text; never markup, so that nothing from elsewhere is read as a part of the page. */
export function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  text = "",
  attributes: Record<string, string> = {},
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** What the reader can do about a failure. */
export type Remedy = { label: string; act: () => Promise<void> };

/** A failure in words for people, with a remedy where there is one. */
export class Plain extends Error {
  constructor(
    message: string,
    readonly remedy?: Remedy,
  ) {
    super(message);
  }
}

/** Where a form or a section says how it goes; the nearest one if `name` is not given. */
export function sayer(name: string, within: ParentNode = document): HTMLElement {
  return need(name === "" ? "[data-say]" : `[data-say="${name}"]`, within);
}

export function say(where: HTMLElement, text: string, kind: "" | "good" | "bad" = ""): void {
  where.className = `say ${kind}`;
  where.replaceChildren(text);
}

/** Do something for a button: it is busy meanwhile, and what goes wrong is said in words. */
export async function during(
  button: HTMLElement | null,
  where: HTMLElement,
  act: () => Promise<void>,
): Promise<void> {
  if (button?.getAttribute("aria-busy") === "true") return;
  button?.setAttribute("aria-busy", "true");
  say(where, "");
  try {
    await act();
  } catch (error) {
    const plain = error instanceof Error ? error : new Error(String(error));
    say(where, plain.message, "bad");
    if (plain instanceof Plain && plain.remedy !== undefined) {
      const { label, act: remedy } = plain.remedy;
      const again = element("button", label, { type: "button" });
      again.addEventListener("click", () => void during(again, where, remedy));
      where.append(again);
    }
  } finally {
    button?.removeAttribute("aria-busy");
  }
}

/** Have a button of the page do something; the page may have none of this kind. */
export function onAction(name: string, sayName: string, act: (button: HTMLButtonElement) => Promise<void>): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>(`[data-action="${name}"]`)) {
    const within = button.closest("section") ?? document;
    button.addEventListener("click", () => void during(button, sayer(sayName, within), () => act(button)));
  }
}

const UNIT = 1_000_000n;

/** Base units of USDC from a text like 12.50; nothing is rounded. */
export function parseUsdc(text: string): bigint {
  const match = /^([0-9]+)(?:\.([0-9]{1,6}))?$/.exec(text.trim());
  if (match === null) throw new Plain(`“${text}” is not an amount of USDC: write it like 12.50.`);
  return BigInt(match[1]!) * UNIT + BigInt((match[2] ?? "").padEnd(6, "0"));
}

/** 12500000 as 12.50. */
export function formatUsdc(amount: bigint): string {
  const fraction = (amount % UNIT).toString().padStart(6, "0").replace(/0{1,4}$/, "");
  return `${(amount / UNIT).toString().replace(/\B(?=(\d{3})+$)/g, ",")}.${fraction}`;
}

/** An amount as a JSON number of base units, which holds all that the vault can. */
export function asNumber(amount: bigint): number {
  if (amount > BigInt(Number.MAX_SAFE_INTEGER)) throw new Plain("That is more USDC than there is.");
  return Number(amount);
}

export const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));
