/**
 * What a supervisor and its gateway processes tell each other over IPC. Types and one name.
 *
 * The two may be of different versions, for as long as a supervisor lives: fields are added, never changed.
 */

export type ToSupervisor =
  /** It serves. The supervisor waits for a successor, and for this one to leave, by its times. */
  | {
      readonly kind: 'ready';
      readonly restartMs: number;
      readonly drainMs: number;
      /** `HOST:PORT` of its listeners, as configured, for the one that is started beside it. */
      readonly listen?: string;
      readonly admin?: string;
    }
  /** It will not serve, or no longer, and ends once the clients it has are served. */
  | { readonly kind: 'leaving'; readonly drainMs: number }
  /** Somebody asked it for a restart. */
  | { readonly kind: 'restart' };

export type FromSupervisor =
  /** Another process has the addresses: finish what is there and go. */
  | { readonly kind: 'replaced' }
  /** No other process is left: one that was to take over serves as soon as it can, and files are its own. */
  | { readonly kind: 'alone' }
  /** How a restart ended, to the process that serves behind it; '' when it is the new one. */
  | { readonly kind: 'restarted'; readonly problem: string };

/** What a process is to know of another that lives when it is started. */
export interface Beside {
  /** Of one that serves, from which it is to take over. */
  readonly listen?: string | undefined;
  readonly admin?: string | undefined;
  /** It writes the same files, and is the one that renames them, until the new one is told `alone`. */
  readonly sharesFiles?: boolean;
}

/** Variable with it, as JSON. */
export const besideVariable = 'SLUICE_BESIDE';
