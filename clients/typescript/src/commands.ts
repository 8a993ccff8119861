/** Commands in a container: run and waited for, or started and followed. */

import { type CommandResult, type CommandStatus, type Exit, type Gap, type Output, resultOf, type Signal } from "./answers.js";
import { ApiError, Conflict, mayPass, problemOf, TimedOut, Unreachable } from "./errors.js";
import { Terminal } from "./terminals.js";
import type { Transport } from "./transport.js";
import { at, base64, bytesOf, concat, fromBase64, given, INPUT_BYTES, KEPT_BYTES, Patience, SHELL, type Words, wordsBody } from "./wire.js";

export interface CommandOptions {
  cwd?: string;
  env?: Record<string, string>;
  stdin?: string | Uint8Array;
  /** Then the command and its children are killed; null: never. */
  timeoutMs?: number | null;
}

export interface RunOptions extends CommandOptions {
  /** Follow the output while it comes, as text. */
  onStdout?: (text: string) => void;
  onStderr?: (text: string) => void;
}

export interface TerminalOptions {
  cols?: number;
  rows?: number;
  cwd?: string;
  env?: Record<string, string>;
}

const ENDS: Record<string, [number, string]> = {
  released: [409, "not_assigned"],
  revoked: [401, "authentication_failed"],
  lost: [502, "command_lost"],
};

/** A command that was started. It needs no reader, and goes on when this object, or this program, is gone. */
export class Command {
  readonly #path: string;

  constructor(
    private readonly client: Transport,
    base: string,
    readonly id: string,
  ) {
    this.#path = `${base}/commands/${at(id)}`;
  }

  status(): Promise<CommandStatus> {
    return this.client.call("GET", this.#path);
  }

  /**
   * What it writes after this offset, and its exit last. A broken connection is made again where it broke.
   *
   * Throws Conflict when the tenant no longer holds the container, Unauthorized when the key is revoked, Failed
   * (`command_lost`), and Unreachable when the server stays away for the client's `patienceMs`.
   */
  async *output(after = 0, signal?: AbortSignal): AsyncGenerator<Output | Gap | Exit, void, void> {
    const patience = new Patience(this.client.patienceMs);
    for (let position = after; ; ) {
      let broken: unknown = new Unreachable("The stream of output broke, and nothing more came.");
      try {
        const query = { after: position, encoding: "base64" };
        for await (const { name, data } of this.client.events(`${this.#path}/output`, { query, signal })) {
          if (name === "open") patience.open();
          else patience.reset();
          if (name === "stdout" || name === "stderr") {
            position = data.offset;
            yield { kind: "output", stream: name, data: fromBase64(data.data), offset: position };
          } else if (name === "gap") {
            position = data.offset;
            yield { kind: "gap", offset: position };
          } else if (name === "exit") {
            yield { kind: "exit", exitCode: data.exitCode, signal: data.signal, timedOut: data.timedOut };
            return;
          } else if (name === "end") {
            await this.#refuseUnlessItGoesOn(data);
            break;
          }
        }
      } catch (error) {
        if (!mayPass(error)) throw error;
        broken = error;
      }
      await patience.pause(broken);
    }
  }

  /** `lost` is only the connection, if the command's state is another one. */
  async #refuseUnlessItGoesOn(end: { reason: string; detail?: string }): Promise<void> {
    if (end.reason === "lost" && (await this.status()).state !== "lost") return;
    const [status, code] = ENDS[end.reason] ?? [502, "command_lost"];
    throw problemOf(status, { code, detail: end.detail ?? "" });
  }

  /** Follow it to its end. Throws TimedOut, and as `output`. */
  async wait(options: Pick<RunOptions, "onStdout" | "onStderr"> = {}): Promise<CommandResult> {
    const began = performance.now();
    const kept = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
    const room = { stdout: KEPT_BYTES, stderr: KEPT_BYTES };
    const isCut = { stdout: false, stderr: false };
    const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
    const say = { stdout: options.onStdout, stderr: options.onStderr };
    for await (const item of this.output()) {
      if (item.kind === "gap") isCut.stdout = isCut.stderr = true;
      else if (item.kind === "output") {
        const { stream, data } = item;
        kept[stream].push(data.subarray(0, room[stream]));
        isCut[stream] ||= data.length > room[stream];
        room[stream] = Math.max(0, room[stream] - data.length);
        const text = decoders[stream].decode(data, { stream: true });
        if (text) say[stream]?.(text);
      } else {
        for (const stream of ["stdout", "stderr"] as const) {
          const text = decoders[stream].decode();
          if (text) say[stream]?.(text);
        }
        const [stdoutBytes, stderrBytes] = [concat(kept.stdout), concat(kept.stderr)];
        const decoder = new TextDecoder();
        const [stdout, stderr] = [decoder.decode(stdoutBytes), decoder.decode(stderrBytes)];
        if (item.timedOut) {
          const detail = "The command did not end within its time and was killed.";
          throw new TimedOut(504, { code: "exec_timed_out", detail, stdout, stderr });
        }
        const cut = { stdoutTruncated: isCut.stdout, stderrTruncated: isCut.stderr };
        const durationMs = Math.round(performance.now() - began);
        const { exitCode, signal } = item;
        return { commandId: this.id, exitCode, signal, stdout, stderr, stdoutBytes, stderrBytes, ...cut, durationMs, via: "agent" };
      }
    }
    throw new Unreachable("The stream of output ended without the command's exit.");
  }

  /** Write to its input. Throws Conflict (`input_closed`, `command_ended`). */
  async write(data: string | Uint8Array): Promise<void> {
    const bytes = bytesOf(data);
    for (let start = 0; start < bytes.length; start += INPUT_BYTES) {
      const body = { data: base64(bytes.subarray(start, start + INPUT_BYTES)), encoding: "base64" };
      await this.client.call("POST", `${this.#path}/stdin`, body);
    }
  }

  /** End its input; of a terminal, type Ctrl-D. */
  async closeInput(): Promise<void> {
    await this.client.call("POST", `${this.#path}/stdin`, { close: true });
  }

  /** Send a signal to its process group. */
  async signal(name: Signal): Promise<void> {
    await this.client.call("POST", `${this.#path}/signal`, { signal: name });
  }

  /** Resize its terminal. */
  async resize(cols: number, rows: number): Promise<void> {
    await this.client.call("POST", `${this.#path}/resize`, { cols, rows });
  }

  /** Kill it and all that it has started; nothing happens if all of that has ended. */
  async kill(): Promise<void> {
    await this.client.call("DELETE", this.#path);
  }

  /** Its output and input as a terminal. The command goes on when the terminal is detached. */
  attach(after = 0): Terminal {
    return new Terminal(this, after);
  }
}

/** The commands of one container. */
export class Commands {
  constructor(
    private readonly client: Transport,
    private readonly base: string,
  ) {}

  /**
   * Run a program with its arguments, or a script (one text, by `/bin/sh -c`), and wait for its end.
   *
   * Default of `timeoutMs`: 60000. Throws TimedOut and ApiError. If a callback throws, the command is killed.
   */
  async run(words: Words, options: RunOptions = {}): Promise<CommandResult> {
    const { onStdout, onStderr, timeoutMs = 60_000, stdin, ...rest } = options;
    const input = stdin === undefined ? undefined : bytesOf(stdin);
    if (timeoutMs === null || onStdout || onStderr || (input && input.length > INPUT_BYTES)) {
      const started = await this.start(words, { ...rest, timeoutMs, ...(input ? { stdin: "" } : {}) });
      return finish(started, input, options);
    }
    const body = commandBody(words, { ...rest, timeoutMs, ...(input ? { stdin: input } : {}) });
    const answer = await this.client.call("POST", `${this.base}/commands`, body, { waitMs: timeoutMs });
    return "exitCode" in answer ? resultOf(answer) : this.get(answer.commandId).wait();
  }

  /**
   * Start a command and leave it running. Its input stays open if `stdin` is given ("" if there is none yet).
   *
   * Throws Conflict (`needs_guest_agent`), Throttled (`too_many_commands`), ApiError.
   */
  async start(words: Words, options: CommandOptions & { tty?: { cols: number; rows: number } } = {}): Promise<Command> {
    const { tty, timeoutMs = null, ...rest } = options;
    const body = { ...commandBody(words, { ...rest, timeoutMs }), wait: false, ...(tty ? { tty } : {}) };
    const answer = await this.client.call("POST", `${this.base}/commands`, body);
    return this.get(answer.commandId);
  }

  /** A command of which only the id is known, perhaps started by another program. Nothing is asked yet. */
  get(id: string): Command {
    return new Command(this.client, this.base, id);
  }

  /** Those that run and those that ended in the last ten minutes, newest first. */
  async list(): Promise<CommandStatus[]> {
    return (await this.client.call("GET", `${this.base}/commands`)).items;
  }

  /** A shell, or another command, on a terminal; killed when the terminal is disposed of or killed. */
  async terminal(words: Words = SHELL, options: TerminalOptions = {}): Promise<Terminal> {
    const { cols = 80, rows = 24, ...rest } = options;
    return new Terminal(await this.start(words, { ...rest, tty: { cols, rows } }), 0);
  }
}

function commandBody(words: Words, options: CommandOptions) {
  const { cwd, env, stdin, timeoutMs } = options;
  const input = stdin === undefined ? undefined : base64(bytesOf(stdin));
  const limit = timeoutMs === null || timeoutMs === undefined ? 0 : Math.max(1, Math.round(timeoutMs));
  return { ...wordsBody(words), encoding: "base64", timeoutMs: limit, ...given({ cwd, env, stdin: input }) };
}

/** Give it its input, and follow it. */
async function finish(command: Command, input: Uint8Array | undefined, options: RunOptions): Promise<CommandResult> {
  try {
    if (input) await feed(command, input);
    return await command.wait(options);
  } catch (error) {
    if (!(error instanceof ApiError || error instanceof Unreachable)) await command.kill().catch(() => undefined); // a callback's error matters more
    throw error;
  }
}

async function feed(command: Command, input: Uint8Array): Promise<void> {
  try {
    await command.write(input);
    await command.closeInput();
  } catch (error) {
    const isEnough = error instanceof Conflict && ["input_closed", "command_ended"].includes(error.code);
    if (!isEnough) throw error; // a command need not want all of its input
  }
}
