/** What is sent again after which failure, and how streams go on. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { ApiError, Client, Conflict, Invalid, NotFound, PreconditionFailed, Throttled, Unreachable } from "../src/index.js";

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

let server: Server | undefined;
const seen: { method: string; url: string; headers: IncomingMessage["headers"]; body: string }[] = [];

/** A client of a server that gives these answers, one after another, and the last one for ever. */
async function answering(...answers: Answer[]): Promise<Client> {
  seen.length = 0;
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      seen.push({ method: request.method!, url: request.url!, headers: request.headers, body });
      answers[Math.min(seen.length, answers.length) - 1]!(request, response);
    });
  });
  await new Promise<void>((resolve) => server!.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return new Client({ url: `http://127.0.0.1:${port}`, key: "bh_key", timeoutMs: 2000, patienceMs: 2000 });
}

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

const ok = (body: unknown, headers = {}): Answer => (_, response) => response.writeHead(200, headers).end(JSON.stringify(body));
const problem = (status: number, code: string, headers = {}): Answer => (_, response) =>
  response.writeHead(status, headers).end(JSON.stringify({ code, detail: "so it is", errors: [], requestId: "r1" }));
const torn: Answer = (request) => request.socket.destroy();
const events = (...all: [string, unknown][]): string => all.map(([n, d]) => `event: ${n}\ndata: ${JSON.stringify(d)}\n\n`).join("");

test("a POST whose answer is lost is sent again with the same key", async () => {
  const client = await answering(torn, ok({ state: null }));
  expect(await client.tenant("alice").release()).toBe(true);
  const keys = seen.map((one) => one.headers["idempotency-key"]);
  expect(keys).toHaveLength(2);
  expect(keys[0]).toBe(keys[1]);
  expect(keys[0]).toBeTruthy();
  expect(seen[0]!.headers.authorization).toBe("Bearer bh_key");
});

test("two calls have two keys", async () => {
  const client = await answering(ok({ state: null }));
  await client.tenant("a").release();
  await client.tenant("a").release();
  expect(seen[0]!.headers["idempotency-key"]).not.toBe(seen[1]!.headers["idempotency-key"]);
});

test("a conditional write is not sent again once it may have arrived", async () => {
  const client = await answering(torn, ok({}));
  await expect(client.pools.replace("p", {} as never, '"1"')).rejects.toBeInstanceOf(Unreachable);
  expect(seen).toHaveLength(1);
});

test("a stream that is uploaded is sent once", async () => {
  const client = await answering(torn, ok({}));
  const body = new Blob(["data"]).stream();
  await expect(client.tenant("a").files.write("f", body)).rejects.toBeInstanceOf(Unreachable);
  expect(seen).toHaveLength(1);
});

test("Retry-After is waited for, as often as the client may", async () => {
  const client = await answering(problem(429, "throttled", { "Retry-After": "0" }), problem(503, "busy", { "Retry-After": "0" }), ok({ a: 1 }));
  expect(await client.stats()).toEqual({ a: 1 });
  const never = await answering(problem(429, "throttled", { "Retry-After": "0" }));
  await expect(never.stats()).rejects.toBeInstanceOf(Throttled);
  expect(seen).toHaveLength(4);
});

test("what does not pass is not sent again", async () => {
  const client = await answering(problem(503, "no_capacity"));
  await expect(client.claim("a", "p")).rejects.toMatchObject({ status: 503, code: "no_capacity", requestId: "r1" });
  expect(seen).toHaveLength(1);
});

test("our own request that still runs is waited for", async () => {
  const client = await answering(problem(409, "idempotency_key_in_flight", { "Retry-After": "0" }), ok({ state: null }));
  expect(await client.tenant("a").release()).toBe(true);
});

test("statuses have classes", async () => {
  for (const [status, kind] of [[404, NotFound], [409, Conflict], [412, PreconditionFailed], [422, Invalid]] as const) {
    const client = await answering(problem(status, "x"));
    const error = await client.pools.get("p").catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(kind);
    expect(error).toBeInstanceOf(ApiError);
    server!.close();
  }
});

test("an answer that is no problem document is an ApiError too", async () => {
  const client = await answering((_, response) => response.writeHead(500).end("<html>proxy</html>"));
  await expect(client.stats()).rejects.toMatchObject({ status: 500, code: "error", detail: "<html>proxy</html>" });
});

test("no redirect is followed", async () => {
  const client = await answering((_, response) => response.writeHead(302, { Location: "http://127.0.0.1:9/" }).end());
  await expect(client.stats()).rejects.toBeInstanceOf(Unreachable);
  expect(seen).toHaveLength(1);
});

test("output goes on after the last byte when the connection breaks", async () => {
  const client = await answering(
    (request, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write(events(["stdout", { offset: 2, data: btoa("ab") }]));
      setTimeout(() => request.socket.destroy(), 50);
    },
    (_, response) =>
      response.end(events(["stdout", { offset: 4, data: btoa("cd") }], ["exit", { exitCode: 3, signal: null, timedOut: false }])),
  );
  const result = await client.tenant("a").commands.get("c").wait();
  expect(result).toMatchObject({ stdout: "abcd", exitCode: 3, stdoutTruncated: false });
  expect(new URL(seen[1]!.url, "http://x").searchParams.get("after")).toBe("2");
});

test("text is not torn where a piece of output ends within a letter", async () => {
  const [one, two] = [btoa("\xc3"), btoa("\xa9")];
  const exit: [string, unknown] = ["exit", { exitCode: 0, signal: null, timedOut: false }];
  const client = await answering((_, response) =>
    response.end(events(["stdout", { offset: 1, data: one }], ["stdout", { offset: 2, data: two }], exit)),
  );
  const heard: string[] = [];
  await client.tenant("a").commands.get("c").wait({ onStdout: (text) => heard.push(text) });
  expect(heard).toEqual(["é"]);
});

test("a download goes on where it broke, and not with another file", async () => {
  const whole = (etag: string, torn: boolean): Answer => (request, response) => {
    response.writeHead(200, { ETag: etag, "Content-Length": "6" });
    response.write("abc");
    if (torn) setTimeout(() => request.socket.destroy(), 50);
    else response.end("def");
  };
  const rest: Answer = (_, response) => response.writeHead(206, { ETag: '"1"' }).end("def");
  const client = await answering(whole('"1"', true), rest);
  expect(await client.tenant("a").files.readText("f")).toBe("abcdef");
  expect(seen[1]!.headers).toMatchObject({ range: "bytes=3-", "if-range": '"1"' });
  const changed = await answering(whole('"1"', true), whole('"2"', false));
  await expect(changed.tenant("a").files.read("f")).rejects.toMatchObject({ code: "file_changed" });
});

test("a download that gets no answer in time is asked for again", async () => {
  const silent: Answer = () => {};
  const client = await answering(silent, (_, response) => response.writeHead(200, { ETag: '"1"' }).end("abc"));
  expect(await client.tenant("a").files.readText("f")).toBe("abc");
  expect(seen).toHaveLength(2);
});

test("events go on after the last one, and end when the signal says so", async () => {
  const event = (id: number) => events(["message", { id, type: "pool.created", payload: {}, timestamp: "" }]);
  const client = await answering(
    (_, response) => response.end(event(7)),
    (_, response) => void response.writeHead(200).write(event(8)),
  );
  const stop = new AbortController();
  const ids: number[] = [];
  const reading = (async () => {
    for await (const one of client.events(6, {}, { signal: stop.signal })) {
      ids.push(one.id);
      if (one.id === 8) setTimeout(() => stop.abort(new Error("enough")), 20);
    }
  })();
  await expect(reading).rejects.toThrow("enough");
  expect(ids).toEqual([7, 8]);
  expect(seen.map((one) => one.headers["last-event-id"])).toEqual(["6", "7"]);
});

test("a claim is released at the end of the block, also by an error, whose own error is kept", async () => {
  const claim = { tenantId: "a", poolId: "p", containerId: "c", generation: 1, endpoints: [] };
  const client = await answering(ok(claim), ok({ state: null }), ok(claim), problem(502, "save_failed"), ok(claim), problem(404, "not_found"));
  {
    await using held = await client.claim("a", "p");
    expect(held.containerId).toBe("c");
  }
  expect(seen.at(-1)!.url).toContain("/release");
  const failing = client.withClaim("a", "p", {}, () => Promise.reject(new Error("mine")));
  await expect(failing).rejects.toThrow("mine");
  expect(await client.withClaim("a", "p", {}, (held) => held.generation)).toBe(1); // somebody else has released it
});

test("what is typed while a request is under way goes together, in its order", async () => {
  const client = await answering((request, response) => {
    if (request.url!.includes("/output")) response.writeHead(200).write(": open\n\n");
    else setTimeout(() => response.end("{}"), 20);
  });
  const terminal = client.tenant("a").commands.get("c").attach();
  await Promise.all([..."typed"].map((letter) => terminal.write(letter)));
  await terminal.detach();
  const typed = seen.filter((one) => one.url.endsWith("/stdin")).map((one) => atob(JSON.parse(one.body).data));
  expect(typed.join("")).toBe("typed");
  expect(typed.length).toBeLessThan(5);
});
