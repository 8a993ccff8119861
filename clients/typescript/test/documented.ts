/** A server that answers with the examples of docs/openapi.json, and records which operations were asked, and how. */

import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const document = JSON.parse(readFileSync(new URL("../../../docs/openapi.json", import.meta.url), "utf-8"));
const METHODS = ["get", "put", "post", "delete", "patch"];

interface Route {
  method: string;
  pattern: RegExp;
  parameters: number;
  operation: any;
}

const routes: Route[] = Object.entries<any>(document.paths).flatMap(([path, operations]) =>
  Object.entries<any>(operations)
    .filter(([method]) => METHODS.includes(method))
    .map(([method, operation]) => ({
      method: method.toUpperCase(),
      pattern: new RegExp(`^${path.replace(/\{\w+\}/g, "[^/]+")}$`),
      parameters: path.split("{").length,
      operation,
    })),
);

export const OPERATIONS: Record<string, any> = Object.fromEntries(
  routes.map(({ operation }) => [operation.operationId, operation]),
);

const STREAMS: Record<string, [string, unknown]> = {
  output: ["exit", { exitCode: 0, signal: null, timedOut: false }],
  watch: ["ready", {}],
  stream: ["message", { id: 7, type: "pool.created", payload: {}, timestamp: "2026-11-28T12:00:00Z" }],
};

export function exampleBody(operation: string): any {
  return OPERATIONS[operation].requestBody.content["application/json"].example;
}

export class Documented {
  asked: string[] = [];
  faults: string[] = [];
  keys: string[] = [];
  url = "";
  readonly #server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => this.#answer(request, Buffer.concat(pieces).toString(), response));
  });

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #answer(request: IncomingMessage, body: string, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", this.url);
    const operation = routes
      .filter(({ method, pattern }) => method === request.method && pattern.test(url.pathname))
      .sort((one, other) => one.parameters - other.parameters)[0]?.operation;
    if (!operation) {
      this.faults.push(`${request.method} ${url.pathname} is no operation`);
      response.writeHead(404).end();
      return;
    }
    this.asked.push(operation.operationId);
    const isPost = request.method === "POST";
    if (isPost && !request.headers["idempotency-key"]) this.faults.push("A POST without an Idempotency-Key");
    this.faults.push(...faults(operation, url.searchParams, body, request).map((one) => `${operation.operationId}: ${one}`));
    const [code, answer] = Object.entries<any>(operation.responses)
      .filter(([status]) => status.startsWith("2"))
      .sort()[0]!;
    const [kind, media] = Object.entries<any>(answer.content ?? {})[0] ?? [];
    if (!kind) response.writeHead(Number(code)).end();
    else response.writeHead(Number(code), { "Content-Type": kind, ETag: '"1"' }).end(content(kind, media, url, body));
  }
}

function content(kind: string, media: any, url: URL, body: string): string {
  if (kind === "application/json") {
    const isBase64 = body.includes('"base64"') && "stdout" in media.example;
    return JSON.stringify({ ...media.example, ...(isBase64 ? { stdout: "b3V0", stderr: "b3V0" } : {}) });
  }
  if (kind !== "text/event-stream") return "some\n";
  const [name, data] = STREAMS[url.pathname.split("/").at(-1)!]!;
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

function faults(operation: any, query: URLSearchParams, body: string, request: IncomingMessage): string[] {
  const named = (operation.parameters ?? []).filter((one: any) => one.in === "query");
  const known: string[] = named.map((one: any) => one.name);
  const missing = named.filter((one: any) => one.required && !query.has(one.name));
  const all = [...query.keys()].filter((name) => !known.includes(name)).map((name) => `?${name} is not documented`);
  all.push(...missing.map((one: any) => `?${one.name} is missing`));
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  if (schema && body) all.push(...bodyFaults(resolved(schema), JSON.parse(body)));
  else if (operation.requestBody?.required && !body) all.push("has no body");
  else if (!operation.requestBody && body) all.push(`has a body (${request.headers["content-type"]})`);
  return all;
}

function resolved(schema: any): any {
  return schema.$ref ? document.components.schemas[schema.$ref.split("/").at(-1)] : schema;
}

/** Names and kinds of the outermost fields; tests/core/test_python_client_operations.py validates the whole schema. */
function bodyFaults(schema: any, body: Record<string, unknown>): string[] {
  if (!schema.properties) return [];
  const unknown = Object.keys(body).filter((name) => !(name in schema.properties));
  const missing = (schema.required ?? []).filter((name: string) => !(name in body));
  return [...unknown.map((name) => `${name} is no field`), ...missing.map((name: string) => `${name} is missing`)];
}
