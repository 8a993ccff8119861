/** A client for the REST API of Boilerhouse. */

export { checked } from "./answers.js";
export type * from "./answers.js";
export { Client, type BeginOptions, type ClaimOptions } from "./client.js";
export * from "./collections.js";
export { Command, Commands, type CommandOptions, type RunOptions, type TerminalOptions } from "./commands.js";
export {
  ApiError,
  CommandFailed,
  Conflict,
  Failed,
  Forbidden,
  Invalid,
  NoSpace,
  NotFound,
  PreconditionFailed,
  Throttled,
  TimedOut,
  Unauthorized,
  Unavailable,
  Unreachable,
  type FieldError,
} from "./errors.js";
export { Files, SavedFiles, type Content, type Part, type Path, type WriteOptions } from "./files.js";
export { Claim, Container, Held, PendingClaim, Tenant, type ReleaseOptions } from "./tenants.js";
export { Terminal } from "./terminals.js";
export type { Options } from "./transport.js";
export type { Query, Words } from "./wire.js";
