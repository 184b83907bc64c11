// A new job: the bundle goes up as soon as it is chosen, the estimate follows each choice, and the terms
// that come back are held against what was asked before the page goes on to the signature.

import htmx from "htmx.org";
import { getAddress, type Hex } from "viem";
import { call, get, Refused } from "./api.js";
import { checkTerms, policyDigestOf } from "./agreement.js";
import { digestOf, upload, zipOf } from "./bundle.js";
import { Plain, asNumber, during, formatUsdc, meta, need, parseUsdc, say, sayer } from "./page.js";
import { makeKey } from "./resultkeys.js";
import type { HubInfo, JobCreated, Policy, Profile, Upload } from "./types.js";

type Ready = { upload: Upload; digest: Hex };

export function newJobPage(): void {
  const form = need<HTMLFormElement>("#new-job");
  const budget = need<HTMLInputElement>('[name="budget"]', form);
  let ready: Ready | undefined;
  let own = false; // whether the budget is the reader's own, and not the estimate's

  const take = (archive: () => Promise<Uint8Array>): void => {
    ready = undefined;
    const bar = need<HTMLProgressElement>("#upload-bar");
    const state = need("#bundle-state");
    void during(null, sayer("bundle"), async () => {
      state.textContent = "";
      bar.hidden = false;
      try {
        const data = await archive();
        const digest = digestOf(data);
        const info = await get<HubInfo>("/v1/hub");
        const found = await upload(data, info.max_bundle_bytes, (percent, text) => {
          bar.value = percent;
          state.textContent = text;
        });
        if (found.bundle?.digest !== digest) {
          throw new Plain("The hub read other files than this browser. Nothing was ordered; tell the operator.");
        }
        ready = { upload: found, digest };
        const count = Object.keys(found.bundle.files).length;
        state.textContent = `Ready: ${found.bundle.framework}, ${count} files, begins at ${found.bundle.entry_point}.`;
      } catch (error) {
        state.textContent = "";
        throw error;
      } finally {
        bar.hidden = true;
      }
    });
  };
  need<HTMLInputElement>("#bundle-zip").addEventListener("change", (event) => {
    const file = (event.target as HTMLInputElement).files?.[0];
    if (file !== undefined) take(async () => new Uint8Array(await file.arrayBuffer()));
  });
  need<HTMLInputElement>("#bundle-folder").addEventListener("change", (event) => {
    const files = (event.target as HTMLInputElement).files;
    if (files !== null && files.length > 0) take(() => zipOf(files));
  });

  let waiting: ReturnType<typeof setTimeout> | undefined;
  form.addEventListener("input", (event) => {
    const field = event.target as HTMLInputElement;
    if (field.type === "file") return;
    if (field === budget) own = budget.value !== "";
    // what was said of the form as it stood before
    say(sayer("create"), "");
    clearTimeout(waiting);
    waiting = setTimeout(() => htmx.trigger(document.body, "estimate"), 250);
  });
  document.body.addEventListener("htmx:afterSwap", () => {
    const best = document.querySelector<HTMLElement>("#estimate [data-worst-case]");
    if (best !== null && !own) budget.value = formatUsdc(BigInt(best.dataset["worstCase"]!)).replaceAll(",", "");
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = need<HTMLButtonElement>("#create");
    const where = sayer("create");
    void during(button, where, async () => {
      if (ready === undefined) throw new Plain("Choose your model's bundle first (step 1), and wait until it is scanned.");
      if (!form.checkValidity()) {
        form.reportValidity();
        throw new Plain("Something above is missing or not of the right form.");
      }
      await create(form, ready, (text) => say(where, text));
    });
  });
}

async function create(form: HTMLFormElement, ready: Ready, told: (text: string) => void): Promise<void> {
  const fields = new FormData(form);
  const text = (name: string): string => String(fields.get(name) ?? "");
  const policy = JSON.parse(need<HTMLInputElement>('[name="policy"]:checked', form).dataset["policy"]!) as Policy;
  told("Making your key…");
  const key = await makeKey();
  const request = {
    upload_id: ready.upload.upload_id,
    modality: text("modality"),
    min_records: policy.min_records,
    policy,
    epochs: Number(text("epochs")),
    budget: asNumber(parseUsdc(text("budget"))),
    result_key: key.publicKey,
    payer: getAddress(meta("wallet")!),
    deadline: Math.floor(Date.now() / 1000) + Number(text("deadline")),
    node_id: text("node_id") === "" ? null : Number(text("node_id")),
  };
  told("Asking the hub for terms…");
  const [info, library] = await Promise.all([
    get<HubInfo>("/v1/hub"),
    get<{ rules: Record<string, string> }>("/v1/policies"),
  ]);
  let created: JobCreated;
  try {
    // The fresh key makes each request another one, so it names the request too.
    created = await call<JobCreated>("POST", "/v1/jobs", request, { "idempotency-key": key.digest });
  } catch (error) {
    if (error instanceof Refused) throw new Plain(inWords(error));
    throw error;
  }
  const { profile } = await get<{ profile: Profile }>(`/v1/catalogue/${created.terms.node_id}`);
  checkTerms(
    created.job_id,
    created.terms,
    {
      payer: request.payer,
      budget: request.budget,
      deadline: request.deadline,
      nodeId: request.node_id,
      modelDigest: ready.digest,
      policyDigest: policyDigestOf(library.rules, policy),
      resultKeyDigest: key.digest,
    },
    profile,
    info.deployment,
  );
  location.assign(`/console/jobs/${created.job_id}`);
}

function inWords(error: Refused): string {
  switch (error.code) {
    case "BudgetTooSmall":
      return `${error.message}. Raise the budget: what is not earned comes back.`;
    case "NoNodeAvailable":
      return `No node can take this job now: ${error.message}`;
    case "UploadUnknown":
      return "The hub has forgotten the upload. Choose the bundle again.";
    default:
      return error.message;
  }
}
