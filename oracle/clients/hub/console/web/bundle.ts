// A model's bundle: from a zip or a folder to the hub, in parts (tus 1.0.0), going on where it broke off.

import { unzipSync, zipSync, type Zippable } from "fflate";
import { type Hex, bytesToHex, sha256 } from "viem";
import { bundleDigest } from "../../../../../settlement/typescript/digests.js";
import { get, Refused, send, Unreachable } from "./api.js";
import { Plain, pause } from "./page.js";
import type { Upload } from "./types.js";

const PART = 1 << 20;
const TRIES = 6;
const TUS = { "tus-resumable": "1.0.0" };
const SOURCES = /\.(py|json|safetensors)$/;
const EARLIEST = new Date(1980, 0, 1); // what a zip can carry: equal folders give equal zips

/** The archive of a folder's sources; what is no source stays at home. */
export async function zipOf(files: Iterable<File>): Promise<Uint8Array> {
  const packed: Zippable = {};
  for (const file of files) {
    const path = file.webkitRelativePath.split("/").slice(1).join("/") || file.name;
    const hidden = path.split("/").some((part) => part.startsWith(".") || part === "__pycache__");
    if (SOURCES.test(path) && !hidden) packed[path] = [new Uint8Array(await file.arrayBuffer()), { mtime: EARLIEST }];
  }
  if (packed["manifest.json"] === undefined) {
    throw new Plain("The folder has no manifest.json, which says how the model is run.");
  }
  return zipSync(packed);
}

/** The digest of an archive's files, which the terms have to name. */
export function digestOf(archive: Uint8Array): Hex {
  let files: Record<string, Uint8Array>;
  try {
    files = unzipSync(archive);
  } catch {
    throw new Plain("This is not a readable zip.");
  }
  const sources = Object.entries(files).filter(([path]) => !path.endsWith("/"));
  return bundleDigest(Object.fromEntries(sources.map(([path, data]) => [path, bytesToHex(data)])));
}

/** Bring an archive to the hub; a page that was closed in the middle goes on with the same file. */
export async function upload(
  archive: Uint8Array,
  limit: number,
  told: (percent: number, text: string) => void,
): Promise<Upload> {
  if (archive.length > limit) {
    throw new Plain(`The bundle has ${archive.length.toLocaleString("en")} bytes, and the hub takes ${limit.toLocaleString("en")}.`);
  }
  const mark = `rapha.upload.${sha256(archive)}`;
  let path = localStorage.getItem(mark);
  let offset = path === null ? undefined : await offsetOf(path);
  if (path === null || offset === undefined) {
    const begun = await send("POST", "/v1/uploads", { headers: { ...TUS, "upload-length": String(archive.length) } });
    path = begun.headers.get("location")!;
    localStorage.setItem(mark, path);
    offset = 0;
  }
  let failed = 0;
  while (offset < archive.length) {
    told((100 * offset) / archive.length, failed === 0 ? "Uploading…" : "The connection broke; going on…");
    try {
      const answer = await send("PATCH", path, {
        headers: { ...TUS, "upload-offset": String(offset), "content-type": "application/offset+octet-stream" },
        body: archive.slice(offset, offset + PART) as BodyInit,
      });
      offset = Number(answer.headers.get("upload-offset"));
      failed = 0;
    } catch (error) {
      const passing = error instanceof Unreachable || (error instanceof Refused && (error.status >= 500 || error.code === "UploadMisplaced"));
      if (!passing || ++failed === TRIES) throw error;
      await pause(250 * 2 ** failed);
      offset = (await offsetOf(path).catch(() => offset)) ?? 0;
    }
  }
  told(100, "Scanning…");
  const found = await get<Upload>(path);
  if (found.fault !== null) {
    localStorage.removeItem(mark);
    throw new Plain(`The hub refuses the bundle: ${found.fault.detail} (${found.fault.reason})`);
  }
  return found;
}

/** Where an upload goes on; undefined when the hub has forgotten it. */
async function offsetOf(path: string): Promise<number | undefined> {
  try {
    return Number((await send("HEAD", path, { headers: TUS })).headers.get("upload-offset"));
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return undefined;
    throw error;
  }
}
