/** The collections of the API: objects of one kind, by id, with the actions of each kind. */

import type { Direction, Schemas } from "./answers.js";
import type { Transport } from "./transport.js";
import { at, given, type Json, type Query } from "./wire.js";

/** Objects of one kind that can be listed. */
export class Listing<T> {
  constructor(
    protected readonly client: Transport,
    protected readonly path: string,
  ) {}

  /** All of them, newest first, page by page. `filters`: those of the API. */
  async *list(filters: Query = {}): AsyncGenerator<T, void, void> {
    for (let cursor: string | null = null; ; ) {
      const query: Query = { ...filters, limit: 200, cursor };
      const page: any = await this.client.call("GET", this.path, undefined, { query });
      yield* page.items as T[];
      cursor = page.nextCursor;
      if (cursor === null) return;
    }
  }

  protected below<U>(id: string, name: string, filters: Query = {}): AsyncGenerator<U, void, void> {
    return new Listing<U>(this.client, `${this.path}/${at(id, name)}`).list(filters);
  }

  protected act<U>(id: string, verb: string, body?: Json): Promise<U> {
    return this.client.call("POST", `${this.path}/${at(id, verb)}`, body);
  }
}

/** Objects that can be read by their id. */
export class Objects<T> extends Listing<T> {
  /** The object. Throws NotFound. */
  get(id: string): Promise<T> {
    return this.client.call("GET", `${this.path}/${at(id)}`);
  }
}

/** Objects that can be changed. */
export class Replaceable<T, Request> extends Objects<T> {
  /** Write the whole object. With `etag`, throws PreconditionFailed if another has changed it. */
  replace(id: string, body: Request, etag?: string | null, query: Query = {}): Promise<T> {
    return this.client.replace(`${this.path}/${at(id)}`, body, etag, query);
  }

  /** Change some fields, unless somebody else changes the object first. Throws PreconditionFailed. */
  update(id: string, changes: Partial<Request>): Promise<T> {
    return this.client.update(`${this.path}/${at(id)}`, changes);
  }
}

/** Objects that can be made, changed and deleted. */
export class Collection<T, Request> extends Replaceable<T, Request> {
  create(body: Request): Promise<T> {
    return this.client.call("POST", this.path, body);
  }

  /** Delete the object. `{ force: true }`, where the API has it, deletes what is still in use. */
  async delete(id: string, query: Query = {}): Promise<void> {
    await this.client.call("DELETE", `${this.path}/${at(id)}`, undefined, { query });
  }
}

export class Workloads extends Collection<Schemas["Workload"], Schemas["WorkloadRequest"]> {
  /** Look in the registry for a newer image of the workload's tag. */
  refresh(id: string): Promise<Schemas["Workload"]> {
    return this.act(id, "refresh");
  }

  versions(id: string): AsyncGenerator<Schemas["WorkloadVersion"], void, void> {
    return this.below(id, "versions");
  }
}

export class Pools extends Collection<Schemas["Pool"], Schemas["PoolRequest"]> {
  /** Set how many containers the pool has, within its bounds. */
  scale(id: string, targetSize: number): Promise<Schemas["Pool"]> {
    return this.act(id, "scale", { targetSize });
  }

  /** Start no more containers; claims take those that exist. */
  pause(id: string): Promise<Schemas["Pool"]> {
    return this.act(id, "pause");
  }

  /** End a pause or a drain. */
  resume(id: string): Promise<Schemas["Pool"]> {
    return this.act(id, "resume");
  }

  /** Release all tenants, with saves, and start no more containers. */
  drain(id: string): Promise<Schemas["Pool"]> {
    return this.act(id, "drain");
  }

  containers(id: string, filters: Query = {}): AsyncGenerator<Schemas["Container"], void, void> {
    return this.below(id, "containers", filters);
  }

  usage(id: string): AsyncGenerator<Schemas["PoolUsage"], void, void> {
    return this.below(id, "usage");
  }
}

export class SyncSpecs extends Collection<Schemas["SyncSpec"], Schemas["SyncSpecRequest"]> {
  /** Queue a run for the tenant, or for each tenant of the pool. Returns the runs. */
  async trigger(id: string, direction: Direction | "both" = "outward", tenantId?: string): Promise<Schemas["Run"][]> {
    return (await this.act<Schemas["Runs"]>(id, "trigger", given({ direction, tenantId }))).runs as Schemas["Run"][];
  }

  /** Save and restore a small test object now. Returns the sink's health. */
  probe(id: string): Promise<Schemas["SinkHealth"]> {
    return this.act(id, "probe");
  }

  probes(id: string): AsyncGenerator<Schemas["SinkProbe"], void, void> {
    return this.below(id, "probes");
  }

  status(id: string): Promise<Schemas["SyncStatus"]> {
    return this.client.call("GET", `${this.path}/${at(id)}/status`);
  }
}

export class SyncRuns extends Objects<Schemas["Run"]> {
  /** Ask a run to end. */
  cancel(id: string): Promise<Schemas["Run"]> {
    return this.act(id, "cancel");
  }
}

export class Containers extends Objects<Schemas["Container"]> {
  /**
   * Remove a container; one that is held is released first, with a save unless `discard`.
   *
   * True when it is gone, false when not yet in time. Throws Failed (`save_failed`), Conflict (`starting`).
   */
  async remove(id: string, options: { discard?: boolean; timeoutMs?: number } = {}): Promise<boolean> {
    const { discard, timeoutMs = 60_000 } = options;
    const ask = { query: { discard: discard || null, timeoutMs }, waitMs: timeoutMs };
    return (await this.client.raw("DELETE", `${this.path}/${at(id)}`, ask)).answer.status === 204;
  }
}

export class Nodes extends Replaceable<Schemas["Node"], Schemas["NodeRequest"]> {
  /** Start no more containers on the node; its containers stay. */
  cordon(id: string, reason = ""): Promise<Schemas["Node"]> {
    return this.act(id, "cordon", { reason });
  }

  /** Let the node get containers again. */
  uncordon(id: string): Promise<Schemas["Node"]> {
    return this.act(id, "uncordon");
  }

  /** Empty the node: its tenants are released, with a save, after `afterMs`. */
  drain(id: string, body: Partial<Schemas["DrainRequest"]> = {}): Promise<Schemas["Node"]> {
    return this.act(id, "drain", body);
  }

  /** Let the tenants of a machine that does not come back claim elsewhere. `isOff` confirms that nothing runs there. */
  declareLost(id: string, body: Schemas["LostRequest"]): Promise<Schemas["Node"]> {
    return this.act(id, "lost", body);
  }

  /** Make a machine a node, as `manage.py join` does. The answer holds all keys of the deployment. */
  join(body: Schemas["NodeJoinRequest"]): Promise<Schemas["NodeMembership"]> {
    return this.client.call("POST", `${this.path}/join`, body);
  }
}

/** Tokens with which machines join. */
export class NodeTokens extends Listing<Schemas["NodeToken"]> {
  /** Make a token that one machine can join with. Its `token` is shown once. */
  create(body: Schemas["NodeTokenRequest"] = {} as Schemas["NodeTokenRequest"]): Promise<Schemas["NewNodeToken"]> {
    return this.client.call("POST", this.path, body);
  }

  /** End a token at once. Throws Conflict if a machine has joined with it. */
  async revoke(id: string): Promise<void> {
    await this.client.call("DELETE", `${this.path}/${at(id)}`);
  }
}

export class Notifications extends Collection<Schemas["Notification"], Schemas["NotificationRequest"]> {
  /** Send a test message. Returns its delivery. */
  test(id: string): Promise<Schemas["NotificationDelivery"]> {
    return this.act(id, "test");
  }

  deliveries(id: string, filters: Query = {}): AsyncGenerator<Schemas["NotificationDelivery"], void, void> {
    return this.below(id, "deliveries", filters);
  }

  /** Send a message once more. Returns its delivery. */
  resend(id: string, deliveryId: string): Promise<Schemas["NotificationDelivery"]> {
    return this.client.call("POST", `${this.path}/${at(id, "deliveries", deliveryId, "resend")}`);
  }
}

/** What needs attention. */
export class Causes {
  constructor(
    private readonly client: Transport,
    private readonly path: string,
  ) {}

  /** All causes, muted ones too, the most serious first. */
  async *list(): AsyncGenerator<Schemas["Cause"], void, void> {
    yield* (await this.client.call<Schemas["CausePage"]>("GET", this.path)).items;
  }

  /** Send no messages about this cause for `forMs`. Throws NotFound. */
  mute(id: string, forMs: number): Promise<Schemas["Mute"]> {
    return this.client.call("PUT", `${this.path}/${at(id, "mute")}`, { forMs });
  }

  /** Send messages about the cause again. */
  async unmute(id: string): Promise<void> {
    await this.client.call("DELETE", `${this.path}/${at(id, "mute")}`);
  }
}

export class ApiKeys extends Listing<Schemas["ApiKey"]> {
  /** Make a key. The answer's `key` is shown this once. */
  create(body: Schemas["ApiKeyRequest"]): Promise<Schemas["NewApiKey"]> {
    return this.client.call("POST", this.path, body);
  }

  /** Make a key that replaces this one, which works for `overlapMs` more; the answer's `key` is shown once. */
  rotate(id: string, options: { overlapMs?: number; expiresAt?: string } = {}): Promise<Schemas["NewApiKey"]> {
    return this.act(id, "rotate", { overlapMs: 86_400_000, ...given(options) });
  }

  /** End a key at once. */
  async revoke(id: string): Promise<void> {
    await this.client.call("DELETE", `${this.path}/${at(id)}`);
  }
}
