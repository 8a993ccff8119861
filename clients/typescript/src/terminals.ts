/** A command's output and input, over HTTP alone: a browser cannot send a key with a WebSocket. */

import type { Exit, Signal } from "./answers.js";
import type { Command } from "./commands.js";
import { ApiError, Unreachable } from "./errors.js";
import { bytesOf, concat } from "./wire.js";

/** What a command writes, and what is typed. Output goes on after the last byte if the connection breaks. */
export class Terminal implements AsyncDisposable {
  /** How the command ended; undefined while it runs. */
  exit: Exit | undefined;
  readonly #output: ReturnType<Command["output"]>;
  readonly #stop = new AbortController();
  #typed: Uint8Array[] = [];
  #sending: Promise<void> | undefined;

  constructor(
    readonly command: Command,
    /** The offset of the output so far: where `command.attach(position)` would go on. */
    public position: number,
  ) {
    this.#output = command.output(position, this.#stop.signal);
  }

  /** The next output as soon as there is some; undefined when the command has ended. Throws as `Command.output`. */
  async read(): Promise<Uint8Array | undefined> {
    while (!this.exit) {
      const { value, done } = await this.#output.next();
      if (done) break;
      if (value.kind === "exit") this.exit = value;
      else {
        this.position = value.offset;
        if (value.kind === "output") return value.data;
      }
    }
    return undefined;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, void> {
    for (let data = await this.read(); data; data = await this.read()) yield data;
  }

  /** Output as text until this comes in it, or the command ends. */
  async readUntil(end: string): Promise<string> {
    const decoder = new TextDecoder();
    let text = "";
    while (!text.includes(end)) {
      const data = await this.read();
      if (!data) break;
      text += decoder.decode(data, { stream: true });
    }
    return text;
  }

  /** Read and drop what comes until the command has ended. */
  async wait(): Promise<Exit> {
    while (await this.read());
    if (!this.exit) throw new Unreachable("The stream of output ended without the command's exit.");
    return this.exit;
  }

  /** Type this. What is typed while a request is under way goes with the next one, in its order. */
  async write(data: string | Uint8Array): Promise<void> {
    this.#typed.push(bytesOf(data));
    while (this.#typed.length > 0) {
      if (this.#sending) await this.#sending;
      else {
        const typed = concat(this.#typed.splice(0));
        this.#sending = this.command.write(typed).finally(() => (this.#sending = undefined));
      }
    }
    await this.#sending;
  }

  resize(cols: number, rows: number): Promise<void> {
    return this.command.resize(cols, rows);
  }

  signal(name: Signal): Promise<void> {
    return this.command.signal(name);
  }

  closeInput(): Promise<void> {
    return this.command.closeInput();
  }

  /** Stop reading, which throws for a read that waits; the command goes on. */
  async detach(): Promise<void> {
    this.#stop.abort(new Error("The terminal was detached."));
    await this.#output.return();
  }

  /** Kill the command, and stop reading. */
  async kill(): Promise<void> {
    await this.command.kill();
    await this.detach();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.kill();
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof Unreachable)) throw error; // a release ends the command too
    }
  }
}
