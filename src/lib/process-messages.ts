/**
 * What a supervisor and its gateway processes tell each other over IPC. Types only.
 *
 * The two may be of different versions, for as long as a supervisor lives: fields are added, never changed.
 */

export type ToSupervisor =
  /** It serves. The supervisor waits for a successor, and for this one to leave, by its times. */
  | { readonly kind: 'ready'; readonly restartMs: number; readonly drainMs: number }
  /** Somebody asked it for a restart. */
  | { readonly kind: 'restart' };

export type FromSupervisor =
  /** Another process has the addresses: finish what is there and go. */
  | { readonly kind: 'replaced' }
  /** How a restart ended, to the process that serves behind it; '' when it is the new one. */
  | { readonly kind: 'restarted'; readonly problem: string };
