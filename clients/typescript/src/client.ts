/** The client: a handle per tenant and per claim, collections of everything else, and events. */

import type { Event, FileInfo, Link, Schemas } from "./answers.js";
import * as kinds from "./collections.js";
import { ApiError, errorOf, mayPass, Unavailable, Unreachable } from "./errors.js";
import { bodyOf, type Content } from "./files.js";
import { Claim, Container, PendingClaim, Tenant } from "./tenants.js";
import { type Options, Transport } from "./transport.js";
import { given, type Json, type Query, sleep, type Stoppable, type Words, wordsBody } from "./wire.js";

const EVENTS_PAUSE_MS = 500;

export interface BeginOptions {
  config?: Json;
  secrets?: Record<string, string>;
  metadata?: Json;
  network?: Partial<Schemas["TenantNetworkRequest"]>;
  /** The tenant is released this long after the claim, with a save, however active it is. */
  ttlMs?: number;
  timeoutMs?: number;
}

export interface ClaimOptions extends BeginOptions {
  /** Runs once the container is ready, in the same request: `claim.firstResult`. */
  command?: Words;
}

/** Talks to one Boilerhouse with one key. */
export class Client {
  /** Requests by method and path. */
  readonly transport: Transport;
  readonly workloads: kinds.Workloads;
  readonly pools: kinds.Pools;
  readonly syncSpecs: kinds.SyncSpecs;
  readonly syncRuns: kinds.SyncRuns;
  readonly containers: kinds.Containers;
  readonly nodes: kinds.Nodes;
  readonly nodeTokens: kinds.NodeTokens;
  readonly credentials: kinds.Collection<Schemas["Credential"], Schemas["CredentialRequest"]>;
  readonly registryCredentials: kinds.Collection<Schemas["RegistryCredential"], Schemas["RegistryCredentialRequest"]>;
  readonly notifications: kinds.Notifications;
  readonly causes: kinds.Causes;
  readonly apiKeys: kinds.ApiKeys;
  readonly audit: kinds.Listing<Schemas["Audit"]>;

  constructor(options: Options) {
    const transport = (this.transport = new Transport(options));
    this.workloads = new kinds.Workloads(transport, "workloads");
    this.pools = new kinds.Pools(transport, "pools");
    this.syncSpecs = new kinds.SyncSpecs(transport, "sync-specs");
    this.syncRuns = new kinds.SyncRuns(transport, "sync-runs");
    this.containers = new kinds.Containers(transport, "containers");
    this.nodes = new kinds.Nodes(transport, "nodes");
    this.nodeTokens = new kinds.NodeTokens(transport, "nodes/tokens");
    this.credentials = new kinds.Collection(transport, "credentials");
    this.registryCredentials = new kinds.Collection(transport, "registry-credentials");
    this.notifications = new kinds.Notifications(transport, "notifications");
    this.causes = new kinds.Causes(transport, "causes");
    this.apiKeys = new kinds.ApiKeys(transport, "api-keys");
    this.audit = new kinds.Listing(transport, "audit");
  }

  // Claims

  /** Claim a container for the tenant, or find the one that it holds. Throws ApiError. */
  async claim(tenantId: string, poolId: string, options: ClaimOptions = {}): Promise<Claim> {
    const { timeoutMs = 30_000, command, ...rest } = options;
    const body = { poolId, ...given(rest), ...(command === undefined ? {} : wordsBody(command)) };
    return new Claim(this.transport, await this.tenant(tenantId).claimWith(body, timeoutMs));
  }

  /** `claim` for those without `await using`: `use` gets the claim, and it is released when `use` has ended. */
  async withClaim<T>(
    tenantId: string,
    poolId: string,
    options: ClaimOptions,
    use: (claim: Claim) => Promise<T> | T,
  ): Promise<T> {
    const claim = await this.claim(tenantId, poolId, options);
    let result: T;
    try {
      result = await use(claim);
    } catch (error) {
      await claim[Symbol.asyncDispose]().catch((failed: unknown) => {
        if (!(failed instanceof ApiError || failed instanceof Unreachable)) throw failed;
      }); // the error of `use` matters more than that of the release
      throw error;
    }
    await claim[Symbol.asyncDispose]();
    return result;
  }

  /**
   * Claim without waiting (`wait: false`), for a state whose restore takes longer than a request may.
   *
   * `timeoutMs` bounds only the wait for a container. Throws ApiError when the claim is refused.
   */
  async beginClaim(tenantId: string, poolId: string, options: BeginOptions = {}): Promise<PendingClaim> {
    const { timeoutMs = 30_000, ...rest } = options;
    const body = { poolId, ...given(rest), wait: false };
    return new PendingClaim(this.transport, await this.tenant(tenantId).claimWith(body, timeoutMs));
  }

  tenant(id: string): Tenant {
    return new Tenant(this.transport, id);
  }

  /** Tenants that hold something. `filters`: `poolId`, `state`. */
  tenants(filters: Query = {}): AsyncGenerator<Schemas["Held"], void, void> {
    return new kinds.Listing<Schemas["Held"]>(this.transport, "tenants").list(filters);
  }

  /** A container by its id, for staff. */
  container(id: string): Container {
    return new Container(this.transport, id);
  }

  // Events

  /**
   * Events from now on, or after an id, for ever: a broken connection is made again where it broke.
   *
   * `filters`: `type`, `poolId`, `tenantId`, `containerId`. Throws Unauthorized when the key is revoked.
   */
  async *events(after?: number, filters: Query = {}, options: Stoppable = {}): AsyncGenerator<Event, void, void> {
    const { signal } = options;
    for (let last = after; ; ) {
      const headers: Record<string, string> = last === undefined ? {} : { "Last-Event-ID": String(last) };
      try {
        for await (const { data } of this.transport.events("events/stream", { query: filters, headers, signal })) {
          if (typeof data?.type !== "string") continue;
          last = data.id as number;
          yield { id: last, type: data.type, payload: data.payload, timestamp: data.timestamp };
        }
      } catch (error) {
        if (!mayPass(error)) throw error;
      }
      await sleep(EVENTS_PAUSE_MS);
    }
  }

  /**
   * Stored events, newest first; or those after an id, oldest first.
   *
   * An event of type `reset` comes first if events after the id have been deleted.
   */
  async *pastEvents(after?: number, filters: Query = {}): AsyncGenerator<Event, void, void> {
    let [cursor, position] = [null as string | null, after];
    while (true) {
      const query = { ...filters, after: position, cursor, limit: 200 };
      const page: any = await this.transport.call("GET", "events", undefined, { query });
      if (page.reset && position !== undefined) yield { id: position, type: "reset", payload: {}, timestamp: "" };
      yield* page.items as Event[];
      cursor = page.nextCursor;
      if (after !== undefined && page.items.length > 0) position = page.items.at(-1).id;
      else if (cursor === null) return;
    }
  }

  // The deployment

  settings(): Promise<Schemas["Settings"]> {
    return this.transport.call("GET", "settings");
  }

  /** Write all settings. With `etag`, throws PreconditionFailed if another has changed them. */
  replaceSettings(body: Schemas["SettingsRequest"], etag?: string | null): Promise<Schemas["Settings"]> {
    return this.transport.replace("settings", body, etag);
  }

  /** Change some settings, unless somebody else changes any setting first. Throws PreconditionFailed. */
  updateSettings(changes: Partial<Schemas["SettingsRequest"]>): Promise<Schemas["Settings"]> {
    return this.transport.update("settings", changes);
  }

  stats(): Promise<Schemas["Stats"]> {
    return this.transport.call("GET", "stats");
  }

  /** What tenants have used. `filters`: `month` (`2026-11`), `tenantId`, `by` (`tenant`, `day`). */
  usage(filters: Query = {}): AsyncGenerator<Schemas["Usage"], void, void> {
    return new kinds.Listing<Schemas["Usage"]>(this.transport, "usage").list(filters);
  }

  /** Whether the web process answers, and its version. */
  health(): Promise<Schemas["Health"]> {
    return this.transport.call("GET", "health");
  }

  /** The results of the readiness checks, also if one fails. */
  async ready(): Promise<Schemas["Ready"]> {
    try {
      return await this.transport.call("GET", "health/ready", undefined, { retries: 0 });
    } catch (error) {
      if (error instanceof Unavailable && "checks" in error.document) return error.document as unknown as Schemas["Ready"];
      throw error;
    }
  }

  /** The metrics in the text format of Prometheus. */
  async metrics(): Promise<string> {
    return (await this.transport.raw("GET", "metrics")).text;
  }

  // Files by a signed link, without the key

  /** The file that a link leads to, in memory. Throws ApiError and Unreachable. */
  async readLink(link: Link | string): Promise<Uint8Array> {
    const answer = await this.transport.elsewhere(urlOf(link));
    if (!answer.ok) throw await errorOf(answer);
    return new Uint8Array(await answer.arrayBuffer());
  }

  /** Write the file that a link leads to, as `files.write`. Nothing is sent again. */
  async writeLink(link: Link | string, content: Content): Promise<FileInfo> {
    const body = bodyOf(content);
    const headers = { "Content-Type": "application/octet-stream" };
    const init: Json = { method: "PUT", headers, body, ...(body instanceof ReadableStream ? { duplex: "half" } : {}) };
    const answer = await this.transport.elsewhere(urlOf(link), init as RequestInit);
    if (!answer.ok) throw await errorOf(answer);
    return (await answer.json()) as FileInfo;
  }
}

function urlOf(link: Link | string): string {
  return typeof link === "string" ? link : link.url;
}
