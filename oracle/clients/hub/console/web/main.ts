// What each page needs; the page says which one it is.

import "htmx.org";
import { forms } from "./forms.js";
import { jobPage } from "./job.js";
import { balancePage, earningsPage } from "./money.js";
import { newJobPage } from "./newjob.js";
import { meta } from "./page.js";
import { parts } from "./parts.js";
import { connectPage, sessionParts } from "./signin.js";

const PAGES: Record<string, () => void | Promise<void>> = {
  connect: connectPage,
  "new-job": newJobPage,
  job: jobPage,
  balance: balancePage,
  earnings: earningsPage,
};

forms();
parts();
if (meta("wallet") !== undefined) void sessionParts();
void PAGES[document.body.dataset["page"] ?? ""]?.();
