/** Against the running product: BOILERHOUSE_URL, BOILERHOUSE_API_KEY, and BOILERHOUSE_POOL, whose state is saved. */

import { afterEach, expect, test } from "vitest";
import { checked, Client, CommandFailed, Conflict, NotFound, PreconditionFailed, TimedOut, Unauthorized } from "../src/index.js";

function variable(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: tests/stack/test_typescript_client.py runs these tests.`);
  return value;
}

const [url, key, pool] = [variable("BOILERHOUSE_URL"), variable("BOILERHOUSE_API_KEY"), variable("BOILERHOUSE_POOL")];
const client = new Client({ url, key });
const tenant = "ts-alice";

afterEach(async () => {
  await client.tenant(tenant).release({ discard: true }).catch((error: unknown) => {
    if (!(error instanceof NotFound)) throw error;
  });
});

test("state survives the claim, and is read while nobody holds it", async () => {
  await client.withClaim(tenant, pool, { config: { a: 1 }, secrets: { TOKEN: "s3cret" } }, async (c) => {
    await c.files.write("kept.txt", "kept\n");
    expect((await c.exec(["cat", "/run/secrets/TOKEN"])).stdout).toBe("s3cret");
    expect((await client.claim(tenant, pool)).answer.source).toBe("existing");
    expect(await (await c.request("/cgi-bin/about")).json()).toMatchObject({ claim: { generation: c.generation } });
  });
  expect((await client.tenant(tenant).status()).assigned).toBe(false);
  expect(await client.tenant(tenant).savedFiles.readText("/state/kept.txt")).toBe("kept\n");
  await using again = await client.claim(tenant, pool, { command: "cat /state/kept.txt" });
  expect(again.firstResult?.stdout).toBe("kept\n");
  await expect(client.tenant(tenant).savedFiles.read("/state/kept.txt")).rejects.toMatchObject({ code: "held" });
});

test("a claim is begun and waited for apart", async () => {
  const pending = await client.beginClaim(tenant, pool);
  const claim = await pending.ready({ everyMs: 20 });
  expect((await claim.commands.run(["true"])).exitCode).toBe(0);
});

test("commands have exact bytes, input, codes and limits", async () => {
  const c = await client.claim(tenant, pool);
  const bytes = await c.commands.run("printf '\\377\\0'; echo bad >&2; exit 3");
  expect([...bytes.stdoutBytes]).toEqual([255, 0]);
  expect(bytes).toMatchObject({ exitCode: 3, stderr: "bad\n" });
  expect(() => checked(bytes)).toThrow(CommandFailed);
  expect((await c.commands.run(["cat"], { stdin: "typed" })).stdout).toBe("typed");
  const long = "x".repeat(700_000);
  expect((await c.commands.run("wc -c", { stdin: long })).stdout.trim()).toBe("700000");
  await expect(c.commands.run("echo begun; sleep 30", { timeoutMs: 300 })).rejects.toBeInstanceOf(TimedOut);
  const heard: string[] = [];
  await c.commands.run("for i in 1 2 3; do echo $i; sleep 0.1; done", { onStdout: (text) => heard.push(text) });
  expect(heard.join("")).toBe("1\n2\n3\n");
  const dropped = c.commands.run("echo out; sleep 100", { timeoutMs: null, onStdout: () => { throw new Error("mine"); } });
  await expect(dropped).rejects.toThrow("mine");
  expect((await c.commands.list()).filter((one) => one.state === "running")).toEqual([]);
});

test("a command is followed by another client from any byte, and signalled", async () => {
  const c = await client.claim(tenant, pool);
  const started = await c.commands.start("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
  const found = new Client({ url, key }).tenant(tenant).commands.get(started.id);
  let text = "";
  let isSignalled = false;
  for await (const item of found.output()) {
    if (item.kind === "output" && item.stream === "stdout") text += new TextDecoder().decode(item.data); // the shell reports its sleep's end
    if (text === "ready\n" && !isSignalled) {
      isSignalled = true;
      await found.signal("SIGTERM");
    }
    if (item.kind === "exit") expect(item.exitCode).toBe(7);
  }
  expect(text).toBe("ready\ncaught\n");
  let rest = "";
  for await (const item of found.output("ready\n".length)) {
    if (item.kind === "output" && item.stream === "stdout") rest += new TextDecoder().decode(item.data);
  }
  expect(rest).toBe("caught\n");
});

test("a terminal has a size, echoes, and its command ends with it", async () => {
  const c = await client.claim(tenant, pool);
  let id: string;
  {
    await using terminal = await c.terminal(["sh"], { cols: 97, rows: 31 });
    id = terminal.command.id;
    await terminal.write("stty size\n");
    expect(await terminal.readUntil("31 97")).toContain("31 97");
    await terminal.resize(60, 20);
    await terminal.write("stty size\n");
    expect(await terminal.readUntil("20 60")).toContain("20 60");
  }
  await expect.poll(async () => (await c.commands.get(id).status()).state).toBe("exited");
});

test("files of any length and any name go both ways", async () => {
  const c = await client.claim(tenant, pool);
  const big = new Uint8Array(3_000_000).map((_, index) => index % 251);
  await c.files.write("big", new Blob([big]).stream(), { mode: 0o600 });
  expect(Buffer.compare(await c.files.read("big"), big)).toBe(0);
  expect(Buffer.compare(await c.files.read("big", { offset: 10, length: 20 }), big.subarray(10, 30))).toBe(0);
  expect((await c.files.stat("big")).mode).toBe("0600");
  await c.commands.run("printf strange > \"$(printf '/state/\\377 #?%%')\"");
  const names = [];
  for await (const entry of c.files.list()) if (entry.pathEncoding === "percent") names.push(entry);
  expect(names).toHaveLength(1);
  expect(await c.files.readText(names[0]!)).toBe("strange");
  await c.files.move(names[0]!, "plain #?%.txt");
  expect(await c.files.readText("plain #?%.txt")).toBe("strange");
  await expect(c.files.write("big", "other", { onlyNew: true })).rejects.toBeInstanceOf(PreconditionFailed);
  await expect(c.files.read("none")).rejects.toBeInstanceOf(NotFound);
  expect(await c.files.exists("none")).toBe(false);
  await c.files.mkdir("from/below");
  await c.files.write("from/below/f", "tar");
  const tar = [];
  for await (const piece of c.files.readArchive("from")) tar.push(piece);
  await c.files.writeArchive("to", Buffer.concat(tar), { parents: true });
  expect(await c.files.readText("to/below/f")).toBe("tar");
  expect(await c.files.remove("from", { recursive: true })).toBeGreaterThan(1);
  const link = await c.files.link("big", { method: "PUT" });
  await client.writeLink(link, "by link");
  expect(new TextDecoder().decode(await client.readLink(await c.files.link("big")))).toBe("by link");
});

test("changes and events are followed", async () => {
  const c = await client.claim(tenant, pool);
  const kinds: string[] = [];
  for await (const change of c.files.watch(".")) {
    kinds.push(`${change.kind} ${change.path}`);
    if (change.kind === "ready") await c.files.write("seen", "1");
    if (change.path === "seen") break;
  }
  expect(kinds[0]).toBe("ready ");
  for await (const event of client.events(0, { tenantId: tenant, type: "container.claimed" })) {
    expect(event.payload["tenantId"] ?? tenant).toBe(tenant);
    break;
  }
});

test("another key is refused, and another tenant's files are not there", async () => {
  await expect(new Client({ url, key: "bh_none" }).stats()).rejects.toBeInstanceOf(Unauthorized);
  await client.claim(tenant, pool);
  const made = await client.apiKeys.create({ name: "ts", role: "tenant", tenantIds: ["ts-bob"] });
  const bob = new Client({ url, key: made.key });
  await expect(bob.tenant(tenant).files.read("f")).rejects.toBeInstanceOf(NotFound);
  await expect(bob.tenant("ts-bob").files.read("f")).rejects.toBeInstanceOf(Conflict);
  await client.apiKeys.revoke(made.id);
  await expect(bob.tenant("ts-bob").status()).rejects.toBeInstanceOf(Unauthorized);
});
