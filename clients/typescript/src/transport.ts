/** Requests: what is sent again after which failure, and streams. */

import { ApiError, errorOf, Throttled, Unavailable, Unreachable } from "./errors.js";
import { parseEvents, type ServerEvent } from "./sse.js";
import { type Json, type Query, sleep } from "./wire.js";

const LONGEST_PAUSE_MS = 30_000;
/** Longer than any stream of events is silent: the server sends a comment every 15 seconds. */
const SILENCE_MS = 45_000;

export interface Options {
  /** Such as `http://127.0.0.1:8000`. */
  url: string;
  key: string;
  /** How long an answer may take beyond what the request itself asks to wait. Default: 60000. */
  timeoutMs?: number;
  /** How often a request is sent again. Default: 3. */
  retries?: number;
  /** How long a stream that broke waits for the server. Default: 60000. */
  patienceMs?: number;
  /** In place of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
}

export interface Ask {
  query?: Query;
  json?: unknown;
  /** A stream is sent once and never again, as it can be read only once. */
  body?: Uint8Array | Blob | ReadableStream<Uint8Array>;
  headers?: Record<string, string>;
  /** How long the request itself asks to wait. */
  waitMs?: number;
  retries?: number;
  signal?: AbortSignal | undefined;
}

/** Talks to one Boilerhouse with one key. */
export class Transport {
  readonly url: string;
  readonly timeoutMs: number;
  readonly retries: number;
  readonly patienceMs: number;
  readonly #key: string;
  readonly #fetch: typeof globalThis.fetch;

  constructor(options: Options) {
    this.url = options.url.replace(/\/+$/, "");
    this.timeoutMs = options.timeoutMs ?? 60_000;
    this.retries = options.retries ?? 3;
    this.patienceMs = options.patienceMs ?? 60_000;
    this.#key = options.key;
    this.#fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  }

  /** Ask the API below `/api/v1/`. Returns what it answers, null for an empty answer. Throws ApiError, Unreachable. */
  async call<T = any>(method: string, path: string, json?: unknown, ask: Ask = {}): Promise<T> {
    const { text } = await this.raw(method, path, json === undefined ? ask : { ...ask, json });
    return (text === "" ? null : JSON.parse(text)) as T;
  }

  /** The same, as a response with its text. */
  async raw(method: string, path: string, ask: Ask = {}): Promise<{ answer: Response; text: string }> {
    return this.#repeat(method, ask, (headers) => this.#whole(method, path, ask, headers));
  }

  /** Write the whole object. With `etag`, throws PreconditionFailed if another has changed it. */
  replace<T>(path: string, body: unknown, etag?: string | null, query: Query = {}): Promise<T> {
    return this.call("PUT", path, body, { headers: etag ? { "If-Match": etag } : {}, query });
  }

  /** Change some fields, unless somebody else changes the object first. Throws PreconditionFailed. */
  async update<T>(path: string, changes: object): Promise<T> {
    const { answer, text } = await this.raw("GET", path);
    return this.replace(path, { ...JSON.parse(text), ...changes }, answer.headers.get("ETag"));
  }

  /** A body in pieces. Throws Unreachable if the connection breaks, or if nothing comes for `silenceMs`. */
  async *stream(path: string, ask: Ask = {}, silenceMs?: number): AsyncGenerator<Uint8Array, void, void> {
    const { pieces } = await this.open(path, ask, silenceMs);
    yield* pieces;
  }

  /** The answer, and its body in pieces; the connection is closed when the reader leaves `pieces`. */
  async open(path: string, ask: Ask = {}, silenceMs?: number): Promise<{ answer: Response; pieces: Pieces }> {
    const { answer, stop } = await this.#repeat("GET", ask, async (headers) => {
      const stop = new AbortController(); // of this attempt alone: a later one begins with its whole time
      return { answer: await this.#inTime(ask, stop, () => this.#begin("GET", path, ask, headers, stop)), stop };
    });
    return { answer, pieces: this.#pieces(answer, stop, silenceMs) };
  }

  /** The events of one connection. Throws as `stream`. */
  async *events(path: string, ask: Ask = {}): AsyncGenerator<ServerEvent, void, void> {
    const { pieces } = await this.open(path, ask, SILENCE_MS);
    yield { name: "open", data: null };
    yield* parseEvents(pieces);
  }

  /** A request to another address than the API, without the key. No redirect is followed. */
  async elsewhere(url: string, init: RequestInit = {}): Promise<Response> {
    try {
      const signal = init.signal ?? AbortSignal.timeout(this.timeoutMs);
      return await this.#fetch(url, { redirect: "manual", credentials: "omit", ...init, signal });
    } catch (error) {
      throw unreachable(url, error);
    }
  }

  // How they are sent

  async #repeat<T>(method: string, ask: Ask, once: (headers: Record<string, string>) => Promise<T>): Promise<T> {
    const headers: Record<string, string> = { ...ask.headers };
    if (method === "POST" && !("Idempotency-Key" in headers)) headers["Idempotency-Key"] = crypto.randomUUID();
    const isConditional = "If-Match" in headers || "If-None-Match" in headers;
    const isRepeatable = !(ask.body instanceof ReadableStream);
    const most = ask.retries ?? this.retries;
    const until = performance.now() + this.timeoutMs + (ask.waitMs ?? 0);
    for (let attempt = 0; ; ) {
      let pauseMs: number;
      try {
        return await once(headers);
      } catch (error) {
        if (error instanceof Redirected || ask.signal?.aborted) throw error;
        if (error instanceof Unreachable) {
          if (attempt >= most || isConditional || !isRepeatable) throw error;
          pauseMs = 200 * 2 ** attempt++;
        } else if (isOwnAttempt(error) && performance.now() < until) {
          pauseMs = 1000 * ((error as ApiError).retryAfter ?? 1);
        } else if (attempt < most && isRepeatable && mayCome(error)) {
          pauseMs = 1000 * (error.retryAfter ?? 0);
          attempt++;
        } else throw error;
      }
      await sleep(Math.min(pauseMs, LONGEST_PAUSE_MS));
    }
  }

  async #whole(method: string, path: string, ask: Ask, headers: Record<string, string>) {
    const stop = new AbortController();
    try {
      return await this.#inTime(ask, stop, async () => {
        const answer = await this.#begin(method, path, ask, headers, stop);
        return { answer, text: await answer.text() };
      });
    } catch (error) {
      const isKnown = error instanceof ApiError || error instanceof Unreachable || ask.signal?.aborted;
      throw isKnown ? error : unreachable(this.url, error);
    }
  }

  /** Do it, and abort `stop` if it takes longer than the request may. */
  async #inTime<T>(ask: Ask, stop: AbortController, work: () => Promise<T>): Promise<T> {
    const limitMs = this.timeoutMs + (ask.waitMs ?? 0);
    const timer = setTimeout(() => stop.abort(new Error("No answer in time.")), limitMs);
    try {
      return await work();
    } finally {
      clearTimeout(timer);
    }
  }

  /** One attempt: an answer that succeeds, with its body still to be read. */
  async #begin(method: string, path: string, ask: Ask, headers: Record<string, string>, stop: AbortController) {
    ask.signal?.addEventListener("abort", () => stop.abort(ask.signal?.reason), { once: true });
    ask.signal?.throwIfAborted();
    const named: Record<string, string> = { ...headers, Authorization: `Bearer ${this.#key}` };
    if (ask.json !== undefined) named["Content-Type"] = "application/json";
    const body = ask.json === undefined ? ask.body : JSON.stringify(ask.json);
    const init: Json = { method, headers: named, redirect: "manual", credentials: "omit", signal: stop.signal };
    if (body !== undefined) init["body"] = body;
    if (body instanceof ReadableStream) init["duplex"] = "half";
    let answer: Response;
    try {
      answer = await this.#fetch(`${this.url}/api/v1/${path}${queryOf(ask.query)}`, init as RequestInit);
    } catch (error) {
      if (ask.signal?.aborted) throw ask.signal.reason;
      throw unreachable(this.url, error);
    }
    if (answer.ok) return answer;
    if (answer.type === "opaqueredirect" || (answer.status >= 300 && answer.status < 400)) {
      stop.abort();
      const where = answer.headers.get("Location") ?? "another address";
      throw new Redirected(`${this.url} redirects to ${where}. If that is Boilerhouse, make it the client's url.`);
    }
    let problem: ApiError;
    try {
      problem = await errorOf(answer);
    } catch (error) {
      throw unreachable(this.url, error);
    }
    throw problem;
  }

  async *#pieces(answer: Response, stop: AbortController, silenceMs?: number): Pieces {
    const reader = answer.body?.getReader();
    if (reader === undefined) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      while (true) {
        if (silenceMs) timer = setTimeout(() => stop.abort(new Error("Nothing has come for too long.")), silenceMs);
        let read: ReadableStreamReadResult<Uint8Array>;
        try {
          read = await reader.read();
        } catch (error) {
          throw unreachable(this.url, error);
        } finally {
          clearTimeout(timer);
        }
        if (read.done) return;
        yield read.value;
      }
    } finally {
      stop.abort();
    }
  }
}

export type Pieces = AsyncGenerator<Uint8Array, void, void>;

/** A redirect is not followed, so that neither the key nor the secrets of a claim go elsewhere. */
class Redirected extends Unreachable {}

function queryOf(query: Query | undefined): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (Array.isArray(value)) for (const one of value as string[]) search.append(name, one);
    else if (value !== undefined && value !== null) search.set(name, String(value));
  }
  const text = search.toString();
  return text === "" ? "" : `?${text}`;
}

function unreachable(url: string, error: unknown): Unreachable {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return new Unreachable(`${url} does not answer: ${String(cause)}`, { cause: error });
}

/** The first attempt of this request, whose answer was lost, still runs. */
function isOwnAttempt(error: unknown): boolean {
  return (error as ApiError).code === "idempotency_key_in_flight";
}

function mayCome(error: unknown): error is ApiError {
  return (error instanceof Throttled || error instanceof Unavailable) && error.retryAfter !== undefined;
}
