/** What requests say and how answers are read: everything that does not depend on how bytes travel. */

export const KEPT_BYTES = 1 << 20;
/** Of one request: its body has at most 1 MiB, in base64. */
export const INPUT_BYTES = 512 * 1024;
export const SHELL = "if command -v bash >/dev/null; then exec bash; fi; exec sh";

/** A program with its arguments; or a script, as one text, that `/bin/sh -c` runs. */
export type Words = readonly string[] | string;
export type Json = Record<string, any>;
export type Query = Record<string, string | number | boolean | readonly string[] | null | undefined>;
/** How a stream is left from outside: its next read throws the signal's reason. */
export interface Stoppable {
  signal?: AbortSignal;
}

export function wordsBody(words: Words): Json {
  return typeof words === "string" ? { script: words } : { command: [...words] };
}

export function bytesOf(data: Uint8Array | string): Uint8Array {
  return typeof data === "string" ? new TextEncoder().encode(data) : data;
}

export function base64(data: Uint8Array): string {
  let text = "";
  for (let at = 0; at < data.length; at += 0x8000) text += String.fromCharCode(...data.subarray(at, at + 0x8000));
  return btoa(text);
}

export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

export function concat(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** A body without what is undefined. */
export function given(fields: Json): Json {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** Of a path: each part percent-encoded. */
export function at(...parts: string[]): string {
  return parts.map(encodeURIComponent).join("/");
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** How long a stream that broke is opened again while nothing new comes. */
export class Patience {
  private since: number | undefined;
  private opened: number | undefined;
  private pauseMs = 50;

  constructor(private readonly limitMs: number) {}

  /** Something new has come. */
  reset(): void {
    this.since = undefined;
    this.opened = undefined;
    this.pauseMs = 50;
  }

  /** A connection is open. If it stays so for a while, its end is a new one, even if nothing came. */
  open(): void {
    this.opened = performance.now();
  }

  /** Wait before the next attempt. Throws `broken` when the time is over. */
  async pause(broken: unknown): Promise<void> {
    const now = performance.now();
    if (this.opened !== undefined && now - this.opened > 5000) this.reset();
    this.opened = undefined;
    if (this.since === undefined) this.since = now;
    else if (now - this.since > this.limitMs) throw broken;
    this.pauseMs = Math.min(this.pauseMs * 2, 2000);
    await sleep(this.pauseMs);
  }
}
