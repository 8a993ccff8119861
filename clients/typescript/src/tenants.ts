/** A tenant, its claim, and a container, with what can be done in it. */

import { type CommandResult, type Executed, firstResultOf, printed, type Schemas } from "./answers.js";
import { Listing } from "./collections.js";
import { Commands, type TerminalOptions } from "./commands.js";
import { Failed, NotFound, TimedOut } from "./errors.js";
import { Files, SavedFiles } from "./files.js";
import type { Terminal } from "./terminals.js";
import type { Transport } from "./transport.js";
import { at, base64, bytesOf, given, type Json, type Query, sleep, type Words } from "./wire.js";

/** What can be done in a container, whether it is named by its tenant or by its id. */
export class Held {
  readonly commands: Commands;
  readonly files: Files;

  constructor(
    readonly client: Transport,
    protected readonly path: string,
  ) {
    this.commands = new Commands(client, path);
    this.files = new Files(client, path);
  }

  /** A shell, or another command, on a terminal. */
  terminal(words?: Words, options?: TerminalOptions): Promise<Terminal> {
    return this.commands.terminal(words, options);
  }

  /** Run a command and wait for its end; `commands.run` can do more. Throws TimedOut when it was killed. */
  async exec(
    command: readonly string[],
    options: { stdin?: string | Uint8Array; timeoutMs?: number } = {},
  ): Promise<Executed> {
    const { stdin, timeoutMs = 30_000 } = options;
    const input = stdin === undefined ? {} : { stdin: base64(bytesOf(stdin)) };
    const body = { command: [...command], encoding: "base64", timeoutMs, ...input };
    const done: Schemas["Exec"] = await this.client.call("POST", `${this.path}/exec`, body, { waitMs: timeoutMs });
    const { exitCode, durationMs, stdoutTruncated, stderrTruncated } = done;
    return { exitCode, ...printed(done), stdoutTruncated, stderrTruncated, durationMs };
  }

  /** The last lines that the container wrote, of those after `since`. */
  async logs(options: { tail?: number; since?: Date } = {}): Promise<string> {
    const query = { tail: options.tail ?? 100, since: options.since?.toISOString() };
    return (await this.client.raw("GET", `${this.path}/logs`, { query })).text;
  }

  /** The last lines, and each line that the container writes from now on, until it ends. */
  async *followLogs(
    options: { tail?: number; since?: Date; signal?: AbortSignal } = {},
  ): AsyncGenerator<string, void, void> {
    const query = { tail: options.tail ?? 0, since: options.since?.toISOString(), follow: "true" };
    const decoder = new TextDecoder();
    let rest = "";
    for await (const piece of this.client.stream(`${this.path}/logs`, { query, signal: options.signal })) {
      const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      yield* lines;
    }
    if (rest) yield rest;
  }
}

/** A container by its id, for staff. */
export class Container extends Held {
  constructor(
    client: Transport,
    readonly id: string,
  ) {
    super(client, `containers/${at(id)}`);
  }
}

export interface ReleaseOptions {
  sync?: boolean;
  discard?: boolean;
  timeoutMs?: number;
}

/** One tenant, whether it holds something or not. */
export class Tenant extends Held {
  readonly savedFiles: SavedFiles;

  constructor(
    client: Transport,
    readonly id: string,
  ) {
    super(client, `tenants/${at(id)}`);
    this.savedFiles = new SavedFiles(client, this.path);
  }

  /** A request that waits up to `timeoutMs` on the server. */
  protected wait<T>(method: string, verb: string, body: Json, timeoutMs: number): Promise<T> {
    return this.client.call(method, `${this.path}/${verb}`, body, { query: { timeoutMs }, waitMs: timeoutMs });
  }

  /** @internal */
  claimWith<T>(body: Json, timeoutMs: number): Promise<T> {
    return this.wait("POST", "claim", body, timeoutMs);
  }

  status(): Promise<Schemas["Status"]> {
    return this.client.call("GET", `${this.path}/status`);
  }

  /**
   * Give the container back; true when the state is safe and it is gone, false when not yet in time.
   *
   * Throws NotFound when the tenant holds nothing, Failed (`save_failed`) when the state stays on the node.
   */
  async release(options: ReleaseOptions = {}): Promise<boolean> {
    const { sync, discard = false, timeoutMs = 60_000 } = options;
    const answer = await this.wait<Json>("POST", "release", given({ sync, discard }), timeoutMs);
    return answer["state"] === null;
  }

  /** Queue runs; look at them with `client.syncRuns.get`. */
  async sync(direction: "outward" | "inward" | "both" = "outward"): Promise<Schemas["BriefRun"][]> {
    return (await this.client.call("POST", `${this.path}/sync`, { direction })).runs;
  }

  async heartbeat(): Promise<void> {
    await this.client.call("POST", `${this.path}/heartbeat`);
  }

  /** Its saves and restores. `filters`: `specId`, `state`, `direction`, `trigger`. */
  runs(filters: Query = {}): AsyncGenerator<Schemas["Run"], void, void> {
    return new Listing<Schemas["Run"]>(this.client, `${this.path}/runs`).list(filters);
  }

  /** Its older states. `filters`: `specId`. */
  backups(filters: Query = {}): AsyncGenerator<Schemas["Backup"], void, void> {
    return new Listing<Schemas["Backup"]>(this.client, `${this.path}/backups`).list(filters);
  }

  restoreBackup(backupId: string): Promise<Schemas["Run"]> {
    return this.client.call("POST", `${this.path}/backups/${at(backupId)}/restore`);
  }

  /** Erase what the sinks hold of the tenant; true when nothing is left, false when not yet in time. */
  async eraseState(timeoutMs = 60_000): Promise<boolean> {
    const { answer } = await this.client.raw("DELETE", `${this.path}/state`, { query: { timeoutMs }, waitMs: timeoutMs });
    return answer.status === 204;
  }

  /**
   * After a claim failed with `state_missing` or `state_moved`: let the next one begin with an empty state.
   *
   * Returns how many saved locations are now expected to be empty. Throws Conflict (`not_missing`).
   */
  async forgetState(): Promise<number> {
    return (await this.client.call("POST", `${this.path}/forget-state`)).forgotten;
  }

  /** Where its container may send packets. */
  network(): Promise<Schemas["Network"]> {
    return this.client.call("GET", `${this.path}/network`);
  }

  /** Narrow the pool's policy for it; `{}` narrows nothing. With `etag`, throws PreconditionFailed. */
  setNetwork(policy: Partial<Schemas["EgressRequest"]>, etag?: string): Promise<Schemas["Network"]> {
    return this.client.replace(`${this.path}/network`, policy, etag);
  }

  /**
   * A URL with which any browser reaches this port through the gateway, until it expires or your key ends. Throws
   * NotFound (`port_not_found`), Conflict (`not_assigned`, `gateway_off`).
   */
  portLink(port: number, options: { expiresInS?: number } = {}): Promise<Schemas["PortLink"]> {
    return this.client.call("POST", `${this.path}/ports/${port}/links`, { expiresInS: 3600, ...options });
  }

  /** Release the tenant, with a save, `ttlMs` from now; null: never. */
  setTtl(ttlMs: number | null): Promise<Schemas["Ttl"]> {
    return this.client.call("PUT", `${this.path}/ttl`, { ttlMs });
  }
}

/** A claim that was begun; its state may still be on the way. */
export class PendingClaim extends Tenant {
  constructor(
    client: Transport,
    readonly answer: Schemas["Claim"] | Schemas["Pending"],
  ) {
    super(client, answer.tenantId);
  }

  /** Wait until the claim has succeeded. Throws Failed with the code of what went wrong, and TimedOut. */
  async ready(
    options: { timeoutMs?: number; everyMs?: number; onProgress?: (restore: Schemas["RestoreProgress"]) => void } = {},
  ): Promise<Claim> {
    const until = performance.now() + (options.timeoutMs ?? Infinity);
    while (true) {
      const status: Json = await this.status();
      if (status["state"] === "assigned") {
        return new Claim(this.client, await this.claimWith({ poolId: this.answer.poolId }, 30_000));
      }
      if (status["claimError"] || status["state"] !== "pending") {
        const gone = { code: "claim_aborted", detail: "The tenant's claim is no longer there." };
        throw new Failed(502, status["claimError"] ?? gone);
      }
      if (status["restore"]) options.onProgress?.(status["restore"]);
      if (performance.now() > until) {
        throw new TimedOut(504, { code: "claim_pending", detail: "The claim is still under way." });
      }
      await sleep(options.everyMs ?? 200);
    }
  }
}

/** A container that the tenant holds. `await using` releases it, with save, at the end of the block. */
export class Claim extends Tenant implements AsyncDisposable {
  released = false;

  constructor(
    client: Transport,
    /** All that the API said of the claim. */
    readonly answer: Schemas["Claim"],
  ) {
    super(client, answer.tenantId);
  }

  get containerId(): string {
    return this.answer.containerId;
  }

  get generation(): number {
    return this.answer.generation;
  }

  /**
   * What the claim's own command did; undefined if it had none, or found the container that the tenant held.
   *
   * Throws Failed, TimedOut: the claim holds all the same.
   */
  get firstResult(): CommandResult | undefined {
    const { command } = this.answer as Json;
    return command ? firstResultOf(command) : undefined;
  }

  /** Where the container's port of this name answers, from the node it runs on. */
  url(port = "http"): string {
    const endpoint = this.answer.endpoints.find((one) => one.name === port);
    if (!endpoint) throw new RangeError(`The container has no port of the name ${port}.`);
    return String(endpoint.url);
  }

  /** Ask the container itself, without the key. A redirect is returned as it is. Throws Unreachable. */
  request(path: string, init: RequestInit & { port?: string } = {}): Promise<Response> {
    const { port, headers, ...rest } = init;
    const named = new Headers(headers);
    named.set("X-Boilerhouse-Generation", String(this.generation));
    return this.client.elsewhere(this.url(port) + path, { ...rest, headers: named });
  }

  override async release(options: ReleaseOptions = {}): Promise<boolean> {
    const done = await super.release(options);
    this.released = true;
    return done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.released) return;
    try {
      await this.release();
    } catch (error) {
      if (!(error instanceof NotFound)) throw error; // otherwise somebody else has released it
    }
  }
}
