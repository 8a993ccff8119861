/** Files of a container, and of a save. Nothing is held in memory but what `read` and `write` are asked to. */

import type { Change, FileInfo, Link } from "./answers.js";
import { mayPass, NotFound, PreconditionFailed, Unreachable } from "./errors.js";
import type { Transport } from "./transport.js";
import { concat, Patience, type Query } from "./wire.js";

/** A path as text, or what a list or a change has answered: that may name what is no UTF-8. */
export type Path = string | { path: string; pathEncoding?: "utf-8" | "percent" };
/** A stream is sent once and never again. Browsers send streams only over HTTP/2. */
export type Content = string | Uint8Array | Blob | ReadableStream<Uint8Array>;

export interface Part {
  offset?: number;
  length?: number;
  signal?: AbortSignal;
}

export interface WriteOptions {
  /** Permission bits, such as 0o644. */
  mode?: number;
  parents?: boolean;
  /** Throws PreconditionFailed if there is a file already. */
  onlyNew?: boolean;
  /** An `etag`: throws PreconditionFailed if there is another file. */
  ifMatch?: string;
}

const CHANGES = ["created", "written", "removed", "renamed", "changed", "overflow"];

/** Reads and lists by two routes of the API. */
class Reader {
  constructor(
    protected readonly client: Transport,
    private readonly contentRoute: string,
    private readonly listRoute: string,
  ) {}

  /** A file, or a part of it, in memory. Throws as `stream`. */
  async read(path: Path, part: Part = {}): Promise<Uint8Array<ArrayBuffer>> {
    const pieces: Uint8Array[] = [];
    for await (const piece of this.stream(path, part)) pieces.push(piece);
    return concat(pieces);
  }

  /** A file of UTF-8. Throws TypeError for another one, and as `stream`. */
  async readText(path: Path): Promise<string> {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await this.read(path));
  }

  /**
   * A file in pieces. A broken connection is made again where it broke.
   *
   * Throws NotFound, Forbidden, Conflict, and PreconditionFailed (`file_changed`) if another file has the name when it
   * has to be opened again.
   */
  async *stream(path: Path, part: Part = {}): AsyncGenerator<Uint8Array, void, void> {
    const { offset = 0, length, signal } = part;
    if (length === 0) return;
    const last = length === undefined ? "" : String(offset + length - 1);
    const patience = new Patience(this.client.patienceMs);
    let etag: string | null = null;
    for (let position = offset; ; ) {
      const isPart = position > 0 || last !== "";
      const headers: Record<string, string> = isPart ? { Range: `bytes=${position}-${last}` } : {};
      if (etag && isPart) headers["If-Range"] = etag;
      let broken: unknown;
      try {
        const ask = { query: pathQuery({ path }), headers, signal };
        const { answer, pieces } = await this.client.open(this.contentRoute, ask, this.client.timeoutMs);
        try {
          if (etag && isPart && answer.status === 200) {
            throw new PreconditionFailed(412, { code: "file_changed", detail: "The file was replaced while it was read." });
          }
          etag = answer.headers.get("ETag");
          for await (const piece of pieces) {
            position += piece.length;
            patience.reset();
            yield piece;
          }
          return;
        } finally {
          await pieces.return();
        }
      } catch (error) {
        if (!etag || !mayPass(error)) throw error;
        broken = error;
      }
      await patience.pause(broken);
    }
  }

  protected async *entries(path: Path, query: Query): AsyncGenerator<FileInfo, void, void> {
    for (let cursor: string | null = null; ; ) {
      const page: any = await this.client.call("GET", this.listRoute, undefined, {
        query: { ...pathQuery({ path }), ...query, cursor },
      });
      yield* page.items as FileInfo[];
      cursor = page.nextCursor;
      if (cursor === null) return;
    }
  }
}

/** The files of one container, as its user sees them. A relative path is below its first writable volume. */
export class Files extends Reader {
  readonly #path: string;

  constructor(client: Transport, base: string) {
    super(client, `${base}/files`, `${base}/files/list`);
    this.#path = `${base}/files`;
  }

  /** What is in a directory, parents before their content; links are not entered. */
  list(path: Path = ".", options: { depth?: number } = {}): AsyncGenerator<FileInfo, void, void> {
    return this.entries(path, { depth: options.depth ?? 1 });
  }

  /**
   * Write a file of any length.
   *
   * The new content becomes visible at once, when all of it has arrived; if anything fails, the old one stays.
   */
  async write(path: Path, content: Content, options: WriteOptions = {}): Promise<FileInfo> {
    const { mode, parents, onlyNew, ifMatch } = options;
    const headers: Record<string, string> = { "Content-Type": "application/octet-stream" };
    if (onlyNew) headers["If-None-Match"] = "*";
    else if (ifMatch) headers["If-Match"] = ifMatch;
    const query = { ...pathQuery({ path }), parents: parents || null, mode: mode === undefined ? null : octal(mode) };
    const { text } = await this.client.raw("PUT", this.#path, { query, headers, body: bodyOf(content) });
    return JSON.parse(text) as FileInfo;
  }

  /** What a path names; a link itself. Throws NotFound. */
  stat(path: Path): Promise<FileInfo> {
    return this.client.call("GET", `${this.#path}/stat`, undefined, { query: pathQuery({ path }) });
  }

  async exists(path: Path): Promise<boolean> {
    try {
      await this.stat(path);
      return true;
    } catch (error) {
      if (error instanceof NotFound) return false;
      throw error;
    }
  }

  /** Make a directory. With `parents` (the default), missing parents too, and an existing directory is no error. */
  mkdir(path: Path, options: { mode?: number; parents?: boolean } = {}): Promise<FileInfo> {
    const body = { ...pathQuery({ path }), mode: octal(options.mode ?? 0o755), parents: options.parents ?? true };
    return this.client.call("POST", `${this.#path}/mkdir`, body);
  }

  /** Rename within one file system. Throws Conflict (`file_exists`, `other_file_system`). */
  move(from: Path, to: Path, options: { overwrite?: boolean } = {}): Promise<FileInfo> {
    const body = { ...pathQuery({ from, to }), overwrite: options.overwrite ?? false };
    return this.client.call("POST", `${this.#path}/move`, body);
  }

  /** Remove a file, a link, or with `recursive` a directory. Returns how many names are gone. */
  async remove(path: Path, options: { recursive?: boolean } = {}): Promise<number> {
    const query = { ...pathQuery({ path }), recursive: options.recursive || null };
    return (await this.client.call("DELETE", this.#path, undefined, { query })).removed;
  }

  /** A URL with which anybody can read (or write) this one file, until it expires or the claim ends. */
  link(path: Path, options: { method?: "GET" | "PUT"; expiresInS?: number } = {}): Promise<Link> {
    const body = { ...pathQuery({ path }), method: options.method ?? "GET", expiresInS: options.expiresInS ?? 3600 };
    return this.client.call("POST", `${this.#path}/links`, body);
  }

  /** A directory as a tar archive, in pieces. Throws Unreachable if the connection breaks; then start again. */
  readArchive(path: Path = "."): AsyncGenerator<Uint8Array, void, void> {
    return this.client.stream(`${this.#path}/archive`, { query: pathQuery({ path }) }, this.client.timeoutMs);
  }

  /**
   * Unpack a tar archive, not compressed, into a directory. Returns the number of entries.
   *
   * Throws Invalid (`bad_archive`), which names the entry; the entries before it stay.
   */
  async writeArchive(path: Path, archive: Content, options: { parents?: boolean } = {}): Promise<number> {
    const query = { ...pathQuery({ path }), parents: options.parents || null };
    const headers = { "Content-Type": "application/x-tar" };
    const { text } = await this.client.raw("PUT", `${this.#path}/archive`, { query, headers, body: bodyOf(archive) });
    return JSON.parse(text).entries;
  }

  /**
   * Changes below a directory: `ready` first; it ends when the directory or the claim is gone.
   *
   * After a broken connection an `overflow` says that changes were missed.
   */
  async *watch(
    path: Path = ".",
    options: { recursive?: boolean; signal?: AbortSignal } = {},
  ): AsyncGenerator<Change, void, void> {
    const query = { ...pathQuery({ path }), recursive: options.recursive || null };
    const patience = new Patience(this.client.patienceMs);
    const nothing = { path: "", pathEncoding: "utf-8", isDirectory: false } as const;
    for (let isFirst = true; ; ) {
      let broken: unknown = new Unreachable("The stream of changes broke, and nothing more came.");
      try {
        for await (const { name, data } of this.client.events(`${this.#path}/watch`, { query, signal: options.signal })) {
          if (name === "end") return;
          if (name === "ready") {
            patience.open();
            yield { kind: isFirst ? "ready" : "overflow", ...nothing };
            isFirst = false;
          } else if (CHANGES.includes(name)) {
            patience.reset();
            yield { kind: name as Change["kind"], ...nothing, ...data };
          }
        }
      } catch (error) {
        if ((isFirst && !(error instanceof Unreachable)) || !mayPass(error)) throw error;
        broken = error;
      }
      await patience.pause(broken);
    }
  }
}

/**
 * What a restore would put into a container, while the tenant holds nothing. Paths are absolute, as in the container.
 *
 * Every method throws Conflict (`held`) while the tenant holds a container: then its `files` are the state.
 */
export class SavedFiles extends Reader {
  constructor(client: Transport, base: string) {
    super(client, `${base}/state/content`, `${base}/state/files`);
  }

  /** What is in a directory; links are shown, and not followed. */
  list(path: Path = "/"): AsyncGenerator<FileInfo, void, void> {
    return this.entries(path, {});
  }
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, "0");
}

/** Fields for these paths; percent-encoded all of them if one of them is. */
function pathQuery(paths: Record<string, Path>): Record<string, string> {
  const all = Object.entries(paths);
  const isPercent = (path: Path) => typeof path !== "string" && path.pathEncoding === "percent";
  const text = (path: Path) => (typeof path === "string" ? path : path.path);
  if (!all.some(([, path]) => isPercent(path))) return Object.fromEntries(all.map(([name, path]) => [name, text(path)]));
  const encoded = all.map(([name, path]) => [name, isPercent(path) ? text(path) : encodeURIComponent(text(path))]);
  return { ...Object.fromEntries(encoded), pathEncoding: "percent" };
}

export function bodyOf(content: Content): Uint8Array | Blob | ReadableStream<Uint8Array> {
  return typeof content === "string" ? new TextEncoder().encode(content) : content;
}
