// Forms and buttons that are one call of the API: `data-api` and `data-call` say which.

import { call } from "./api.js";
import { asNumber, during, need, parseUsdc, sayer } from "./page.js";

type Json = { [key: string]: unknown };

function put(body: Json, path: string, value: unknown): void {
  const parts = path.split(".");
  const last = parts.pop()!;
  let at = body;
  for (const part of parts) at = (at[part] ??= {}) as Json;
  at[last] = value;
}

/** A form's fields as the API takes them; dots in a name are levels. */
function bodyOf(form: HTMLFormElement, submitter: HTMLElement | null): Json {
  const body: Json = {};
  for (const field of form.querySelectorAll<HTMLInputElement>("input, select, textarea")) {
    const text = field.value.trim();
    switch (field.dataset["type"]) {
      case "optional":
        if (text !== "") put(body, field.name, text);
        break;
      case "usdc":
        put(body, field.name, asNumber(parseUsdc(text)));
        break;
      case "integer":
        put(body, field.name, text === "" ? null : Number(text));
        break;
      case "list": {
        const chosen = (body[field.name] ??= []) as string[];
        if (field.checked) chosen.push(field.value);
        break;
      }
      default:
        put(body, field.name, text);
    }
  }
  if (submitter instanceof HTMLButtonElement && submitter.name !== "") put(body, submitter.name, submitter.value);
  return body;
}

async function finish(done: string | undefined, answer: unknown): Promise<void> {
  if (done === "secret") {
    const box = need<HTMLElement>("[data-secret]");
    need("[data-secret-text]", box).textContent = (answer as { api_key: string }).api_key;
    box.hidden = false;
    box.focus();
    return;
  }
  if (done === "job") return location.assign(`/console/jobs/${(answer as { job_id: string }).job_id}`);
  location.reload();
}

/** Bring the page's forms and calls to life. */
export function forms(): void {
  for (const form of document.querySelectorAll<HTMLFormElement>("form[data-api]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const submitter = event.submitter;
      void during(submitter, sayer("", form), async () => {
        const answer = await call("POST", form.dataset["api"]!, bodyOf(form, submitter));
        await finish(form.dataset["done"], answer);
      });
    });
  }
  for (const button of document.querySelectorAll<HTMLButtonElement>("button[data-call]")) {
    button.addEventListener("click", () => {
      const question = button.dataset["confirm"];
      if (question !== undefined && !confirm(question)) return;
      void during(button, sayer("", button.closest("section") ?? document), async () => {
        const body = button.dataset["body"];
        const answer = await call(
          button.dataset["method"] ?? "POST",
          button.dataset["call"]!,
          body === undefined ? undefined : JSON.parse(body),
        );
        await finish(button.dataset["done"], answer);
      });
    });
  }
  for (const button of document.querySelectorAll<HTMLButtonElement>('[data-action="copy-secret"]')) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(need("[data-secret-text]").textContent ?? "");
      button.textContent = "Copied";
    });
  }
  for (const select of document.querySelectorAll<HTMLSelectElement>("select[data-submit]")) {
    select.addEventListener("change", () => select.form?.requestSubmit());
  }
}
