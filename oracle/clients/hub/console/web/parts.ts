// Parts of pages that htmx fetches: what goes wrong with one is said where it would have been.

import { element, say } from "./page.js";

const AWAY = "The hub does not answer. This page goes on asking; nothing is lost.";

type Failed = CustomEvent<{ target: HTMLElement; xhr: XMLHttpRequest }>;

export function parts(): void {
  const tell = (target: HTMLElement, text: string): void => {
    const where = document.querySelector<HTMLElement>(`[data-say="${target.id}"]`);
    if (where !== null) say(where, text, "bad");
    else target.replaceChildren(element("p", text, { class: "note bad" }));
  };
  document.body.addEventListener("htmx:responseError", (event) => {
    const { target, xhr } = (event as Failed).detail;
    tell(target, xhr.responseText);
  });
  document.body.addEventListener("htmx:sendError", (event) => tell((event as Failed).detail.target, AWAY));
  document.body.addEventListener("htmx:afterSwap", (event) => {
    const where = document.querySelector<HTMLElement>(`[data-say="${(event as Failed).detail.target.id}"]`);
    if (where !== null) say(where, "");
  });
}
