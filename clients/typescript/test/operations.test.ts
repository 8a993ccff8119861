/** Each operation of docs/openapi.json has a method, and the method asks as the document says. */

import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Client, type Container, type Tenant } from "../src/index.js";
import { Documented, exampleBody, OPERATIONS } from "./documented.js";

const server = new Documented();
let client: Client;

beforeAll(async () => {
  await server.start();
  client = new Client({ url: server.url, key: "key", retries: 0, patienceMs: 0 });
});
afterAll(() => server.stop());
beforeEach(() => {
  server.asked = [];
  server.faults = [];
});

type Call = () => Promise<unknown>;

async function all(items: AsyncIterable<unknown>): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const item of items) found.push(item);
  return found;
}

async function first(items: AsyncIterable<unknown>): Promise<unknown> {
  for await (const item of items) return item;
  throw new Error("Nothing came.");
}

/** `but`: what the API does not have for this kind. */
function ofCollection(get: () => any, one: string, but: string[] = []): Record<string, Call> {
  const calls: Record<string, Call> = {
    list: () => all(get().list()),
    create: () => get().create(exampleBody(`create${one}`)),
    get: () => get().get("x"),
    replace: () => get().replace("x", exampleBody(`replace${one}`), '"1"'),
    delete: () => get().delete("x"),
  };
  const kept = Object.entries(calls).filter(([verb]) => !but.includes(verb));
  return Object.fromEntries(kept.map(([verb, call]) => [`${verb}${one}${verb === "list" ? "s" : ""}`, call]));
}

function ofHeld(word: string, held: () => Tenant | Container, commands: string): Record<string, Call> {
  const command = () => held().commands.get("x");
  return {
    [`get${word}Logs`]: () => held().logs({ tail: 5 }),
    [`read${word}File`]: () => held().files.read("f"),
    [`write${word}File`]: () => held().files.write("f", "data", { mode: 0o600, parents: true }),
    [`remove${word}File`]: () => held().files.remove("f", { recursive: true }),
    [`list${word}Files`]: () => all(held().files.list("d", { depth: 2 })),
    [`show${word}File`]: () => held().files.stat("f"),
    [`make${word}Directory`]: () => held().files.mkdir("d"),
    [`move${word}File`]: () => held().files.move("f", { path: "%FF", pathEncoding: "percent" }, { overwrite: true }),
    [`watch${word}Files`]: () => first(held().files.watch("d", { recursive: true })),
    [`read${word}Archive`]: () => all(held().files.readArchive("d")),
    [`write${word}Archive`]: () => held().files.writeArchive("d", "tar", { parents: true }),
    [`sign${word}FileLink`]: () => held().files.link("f"),
    [`listCommands${commands}`]: () => held().commands.list(),
    [`getCommand${commands}`]: () => command().status(),
    [`killCommand${commands}`]: () => command().kill(),
    [`followCommand${commands}`]: () => all(command().output()),
    [`writeToCommand${commands}`]: async () => [await command().write("in"), await command().closeInput()],
    [`signalCommand${commands}`]: () => command().signal("SIGTERM"),
    [`resizeCommand${commands}`]: () => command().resize(80, 24),
  };
}

const alice = () => client.tenant("alice");
const box = () => client.container("x");
const CALLS: Record<string, Call> = {
  ...ofCollection(() => client.workloads, "Workload"),
  refreshWorkload: () => client.workloads.refresh("x"),
  listWorkloadVersions: () => all(client.workloads.versions("x")),
  ...ofCollection(() => client.pools, "Pool"),
  scalePool: () => client.pools.scale("x", 3),
  pausePool: () => client.pools.pause("x"),
  resumePool: () => client.pools.resume("x"),
  drainPool: () => client.pools.drain("x"),
  getPoolUsage: () => all(client.pools.usage("x")),
  listPoolContainers: () => all(client.pools.containers("x", { state: ["idle", "claimed"], tenantId: "alice" })),
  ...ofCollection(() => client.credentials, "Credential"),
  ...ofCollection(() => client.registryCredentials, "RegistryCredential"),
  ...ofCollection(() => client.syncSpecs, "SyncSpec"),
  triggerSyncSpec: () => client.syncSpecs.trigger("x", "both", "alice"),
  probeSyncSpec: () => client.syncSpecs.probe("x"),
  listSinkProbes: () => all(client.syncSpecs.probes("x")),
  getSyncSpecStatus: () => client.syncSpecs.status("x"),
  ...ofCollection(() => client.syncRuns, "SyncRun", ["create", "replace", "delete"]),
  cancelSyncRun: () => client.syncRuns.cancel("x"),
  ...ofCollection(() => client.notifications, "Notification"),
  testNotification: () => client.notifications.test("x"),
  listNotificationDeliveries: () => all(client.notifications.deliveries("x", { state: "failed" })),
  resendNotificationDelivery: () => client.notifications.resend("x", "y"),
  ...ofCollection(() => client.nodes, "Node", ["create", "delete"]),
  cordonNode: () => client.nodes.cordon("x", "a new disk"),
  uncordonNode: () => client.nodes.uncordon("x"),
  drainNode: () => client.nodes.drain("x", { afterMs: 600_000, reason: "a new disk" }),
  declareNodeLost: () => client.nodes.declareLost("x", { isOff: true, reason: "its mainboard is dead" }),
  joinNode: () => client.nodes.join(exampleBody("joinNode")),
  listNodeTokens: () => all(client.nodeTokens.list()),
  createNodeToken: () => client.nodeTokens.create({ ttlMs: 3_600_000 }),
  revokeNodeToken: () => client.nodeTokens.revoke("x"),
  listCauses: () => all(client.causes.list()),
  muteCause: () => client.causes.mute("x", 3_600_000),
  unmuteCause: () => client.causes.unmute("x"),
  ...ofCollection(() => client.apiKeys, "ApiKey", ["get", "replace", "delete"]),
  rotateApiKey: () => client.apiKeys.rotate("x", { overlapMs: 60_000, expiresAt: "2030-01-01T00:00:00Z" }),
  revokeApiKey: () => client.apiKeys.revoke("x"),
  listAudit: () => all(client.audit.list({ actor: "key ci" })),
  ...ofCollection(() => client.containers, "Container", ["create", "replace", "delete"]),
  removeContainer: () => client.containers.remove("x", { discard: true }),
  execInContainer: () => box().exec(["id"], { stdin: "in" }),
  runCommandInContainer: () => box().commands.run(["id"], { cwd: "/", env: { A: "b" }, stdin: "in" }),
  ...ofHeld("Container", box, "InContainer"),
  listTenants: () => all(client.tenants({ poolId: "notes", state: "pending" })),
  claimContainer: () => client.claim("alice", "notes", { config: { a: 1 }, secrets: { T: "s" }, ttlMs: 1, command: "true" }),
  releaseContainer: () => alice().release({ discard: true }),
  getTenantStatus: () => alice().status(),
  syncTenant: () => alice().sync("inward"),
  heartbeat: () => alice().heartbeat(),
  getTenantNetwork: () => alice().network(),
  setTenantNetwork: () => alice().setNetwork({ mode: "none" }, '"1"'),
  signPortLink: () => alice().portLink(8080, { expiresInS: 60 }),
  setTenantTtl: () => alice().setTtl(3_600_000),
  execForTenant: () => alice().exec(["id"]),
  runCommandForTenant: () => alice().commands.run("id; pwd", { timeoutMs: 5000 }),
  ...ofHeld("Tenant", alice, "OfTenant"),
  readFileByLink: () => client.readLink(`${server.url}/api/v1/file-links/t`),
  writeFileByLink: () => client.writeLink(`${server.url}/api/v1/file-links/t`, "data"),
  listSavedFiles: () => all(alice().savedFiles.list("/state")),
  readSavedFile: () => alice().savedFiles.read("/state/f"),
  eraseTenantState: () => alice().eraseState(),
  forgetTenantState: () => alice().forgetState(),
  listTenantRuns: () => all(alice().runs({ state: "failed", direction: "inward" })),
  listTenantBackups: () => all(alice().backups({ specId: "s" })),
  restoreTenantBackup: () => alice().restoreBackup("x"),
  listUsage: () => all(client.usage({ month: "2026-11", by: "day" })),
  listEvents: () => all(client.pastEvents(undefined, { type: ["pool.created"], poolId: "notes" })),
  streamEvents: () => first(client.events(3, { tenantId: "alice" })),
  getSettings: () => client.settings(),
  replaceSettings: () => client.replaceSettings(exampleBody("replaceSettings"), '"1"'),
  getStats: () => client.stats(),
  getHealth: () => client.health(),
  getReadiness: () => client.ready(),
  getMetrics: () => client.metrics(),
};

test("each operation has a method, and no method is of none", () => {
  expect(Object.keys(CALLS).sort()).toEqual(Object.keys(OPERATIONS).sort());
});

test.each(Object.keys(CALLS).sort())("%s is asked as the document says", async (operation) => {
  await CALLS[operation]!();
  expect(server.faults).toEqual([]);
  expect([...new Set(server.asked)]).toEqual([operation]);
});
