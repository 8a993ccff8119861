/** What the API answers, as types. `Schemas` has all objects of docs/openapi.json, by their names there. */

import { CommandFailed, Failed, TimedOut } from "./errors.js";
import type { components } from "./schema.js";
import { fromBase64 } from "./wire.js";

export type Schemas = components["schemas"];
export type FileInfo = Schemas["File"];
export type CommandStatus = Schemas["Command"];
export type Direction = Schemas["SyncDirection"];
export type Signal = Schemas["SignalEnum"];

/** Something that happened; of type `reset` when events were missed and everything must be read again. */
export interface Event {
  id: number;
  type: string;
  payload: Record<string, any>;
  timestamp: string;
}

/** What a command did. The bytes are exact; of long output they are the beginning. */
export interface CommandResult {
  commandId: string;
  exitCode: number;
  /** The signal that ended it, such as `SIGKILL`. */
  signal: string | null;
  stdout: string;
  stderr: string;
  stdoutBytes: Uint8Array;
  stderrBytes: Uint8Array;
  stdoutTruncated: boolean;
  stderrTruncated: boolean;
  durationMs: number;
  via: "agent" | "engine";
}

/** What `exec` did. */
export type Executed = Omit<CommandResult, "commandId" | "signal" | "via">;

/** Bytes that a command wrote, as they came. `offset` counts the bytes of both streams up to their end. */
export interface Output {
  kind: "output";
  stream: "stdout" | "stderr";
  data: Uint8Array;
  offset: number;
}

/** The output before `offset` is no longer kept. */
export interface Gap {
  kind: "gap";
  offset: number;
}

/** The end of a command. */
export interface Exit {
  kind: "exit";
  exitCode: number;
  signal: string | null;
  timedOut: boolean;
}

/**
 * A change below a watched directory, to which `path` is relative.
 *
 * `ready` comes first. `renamed` names the old name of what was moved; the new one is `created`. `overflow`: changes
 * were missed, so read again what matters.
 */
export interface Change {
  kind: "ready" | "created" | "written" | "removed" | "renamed" | "changed" | "overflow";
  path: string;
  pathEncoding: "utf-8" | "percent";
  isDirectory: boolean;
}

/** A URL that needs no key. */
export type Link = Schemas["Link"];

/** Both streams of an answer whose output is base64. */
export function printed(answer: { stdout: string; stderr: string }) {
  const [stdoutBytes, stderrBytes] = [fromBase64(answer.stdout), fromBase64(answer.stderr)];
  const decoder = new TextDecoder();
  return { stdout: decoder.decode(stdoutBytes), stderr: decoder.decode(stderrBytes), stdoutBytes, stderrBytes };
}

export function resultOf(answer: Schemas["FinishedCommand"]): CommandResult {
  const { commandId, exitCode, signal, stdoutTruncated, stderrTruncated, durationMs, via } = answer;
  const cut = { stdoutTruncated, stderrTruncated };
  return { commandId, exitCode, signal, ...printed(answer), ...cut, durationMs, via };
}

/** The result of a claim's own command, whose output is text. Throws Failed and TimedOut with the code that it has. */
export function firstResultOf(answer: Schemas["FirstCommand"]): CommandResult {
  const { error, stdout, stderr } = answer;
  if (error) {
    const document = { ...error, stdout, stderr };
    throw error.code === "exec_timed_out" ? new TimedOut(504, document) : new Failed(502, document);
  }
  const encoder = new TextEncoder();
  const bytes = { stdoutBytes: encoder.encode(stdout), stderrBytes: encoder.encode(stderr) };
  return { ...answer, stdout, stderr, ...bytes } as CommandResult;
}

/** This result, if the exit code is 0. Throws CommandFailed. */
export function checked(result: CommandResult): CommandResult {
  if (result.exitCode !== 0) throw new CommandFailed(result);
  return result;
}
