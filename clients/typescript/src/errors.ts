/** What can go wrong, as classes: one per status of the API, told apart further by `code`. */

import type { CommandResult } from "./answers.js";

/** One field of the body that cannot be. */
export interface FieldError {
  pointer: string;
  detail: string;
  code: string;
}

/** The API answered with a problem document. `code` says what went wrong, for programs; `document` is all of it. */
export class ApiError extends Error {
  readonly code: string;
  readonly detail: string;
  readonly errors: FieldError[];
  readonly requestId: string;

  constructor(
    readonly status: number,
    readonly document: Record<string, unknown>,
    /** Seconds of `Retry-After`. */
    readonly retryAfter?: number,
  ) {
    const code = String(document["code"] ?? "error");
    const detail = String(document["detail"] ?? document["title"] ?? "");
    super(`${status} ${code}: ${detail}`);
    this.name = new.target.name;
    this.code = code;
    this.detail = detail;
    this.errors = Array.isArray(document["errors"]) ? (document["errors"] as FieldError[]) : [];
    this.requestId = String(document["requestId"] ?? "");
  }
}

/** 401: no key, or one that is wrong, expired or revoked. */
export class Unauthorized extends ApiError {}
/** 403: the key's role may not do that. */
export class Forbidden extends ApiError {}
/** 404: there is no such thing, or it is another tenant's. */
export class NotFound extends ApiError {}
/** 409: not in its present state. */
export class Conflict extends ApiError {}
/** 412: the object has changed since it was read. */
export class PreconditionFailed extends ApiError {}
/** 400, 413, 415, 416, 422: something in the request cannot be. */
export class Invalid extends ApiError {}
/** 429: too many requests of this key. */
export class Throttled extends ApiError {}
/** 502: something beyond Boilerhouse failed: a sink, the engine, a hook. */
export class Failed extends ApiError {}
/** 503: not now. */
export class Unavailable extends ApiError {}
/** 507: the disk of the container is full. */
export class NoSpace extends ApiError {}
/** 504: not within its time. `document.stdout` and `document.stderr` are what a command had printed until then. */
export class TimedOut extends ApiError {}

/** The server could not be reached, or went away before all of its answer had come. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
}

/** `checked`: the command ended with another exit code than 0. `result` is what it did. */
export class CommandFailed extends Error {
  override readonly name = "CommandFailed";

  constructor(readonly result: CommandResult) {
    const by = result.signal ? `was ended by ${result.signal}` : `ended with exit code ${result.exitCode}`;
    super(`The command ${by}: ${result.stderr.trim().slice(-400)}`);
  }
}

const BY_STATUS: Record<number, typeof ApiError> = {
  400: Invalid,
  401: Unauthorized,
  403: Forbidden,
  404: NotFound,
  409: Conflict,
  412: PreconditionFailed,
  413: Invalid,
  415: Invalid,
  416: Invalid,
  422: Invalid,
  429: Throttled,
  502: Failed,
  503: Unavailable,
  504: TimedOut,
  507: NoSpace,
};

/** The code of an error that is no problem document: a proxy between us and Boilerhouse made it. */
export const FOREIGN = "error";

export async function errorOf(answer: Response): Promise<ApiError> {
  const text = await answer.text();
  let problem: unknown;
  try {
    problem = JSON.parse(text);
  } catch {
    problem = undefined; // not ours
  }
  const isOurs = typeof problem === "object" && problem !== null && !Array.isArray(problem);
  const document = isOurs ? (problem as Record<string, unknown>) : { code: FOREIGN, detail: text.slice(0, 200) };
  const after = answer.headers.get("Retry-After") ?? "";
  return problemOf(answer.status, document, /^\d+$/.test(after) ? Number(after) : undefined);
}

export function problemOf(status: number, document: Record<string, unknown>, retryAfter?: number): ApiError {
  return new (BY_STATUS[status] ?? ApiError)(status, document, retryAfter);
}

/** Whether a stream may be opened again after this: the server, or a proxy before it, is restarting or busy. */
export function mayPass(error: unknown): boolean {
  if (error instanceof Unreachable || error instanceof Unavailable || error instanceof Throttled) return true;
  return error instanceof ApiError && error.code === FOREIGN && [502, 503, 504].includes(error.status);
}
