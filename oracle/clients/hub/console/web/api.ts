// The hub's `/v1` API, as this page's session may use it.

import { Plain, meta } from "./page.js";

/** The hub said no, or could not; `code` is its name for why. */
export class Refused extends Plain {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly data: Readonly<Record<string, unknown>>,
  ) {
    super(detail);
  }
}

/** The hub did not answer at all. */
export class Unreachable extends Plain {
  constructor() {
    super("The hub does not answer. Check the connection and try again; nothing is lost.");
  }
}

/** An answer of the hub; what is no success is a `Refused`. */
export async function send(method: string, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  const token = meta("csrf-token");
  if (token !== undefined && method !== "GET") headers.set("x-csrf-token", token);
  let answer: Response;
  try {
    answer = await fetch(path, { ...init, method, headers, credentials: "same-origin" });
  } catch {
    throw new Unreachable();
  }
  if (answer.ok) return answer;
  const problem = (await answer.json().catch(() => ({}))) as Record<string, unknown>;
  if (answer.status === 401) {
    throw new Plain("Your session has ended. Sign in again; what you entered stays in this page.", {
      label: "Sign in",
      act: async () => location.assign("/console/"),
    });
  }
  if (answer.status === 429) {
    throw new Plain(`Too many requests. Wait ${answer.headers.get("retry-after") ?? "a few"} seconds and try again.`);
  }
  throw new Refused(
    answer.status,
    String(problem["code"] ?? `Http${answer.status}`),
    String(problem["detail"] ?? answer.statusText),
    problem,
  );
}

/** JSON for JSON. */
export async function call<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
  const init: RequestInit = { headers };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...headers, "content-type": "application/json" };
  }
  const answer = await send(method, path, init);
  return (answer.status === 204 ? undefined : await answer.json()) as T;
}

export const get = <T>(path: string): Promise<T> => call<T>("GET", path);
