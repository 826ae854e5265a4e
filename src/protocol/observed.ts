/** What an observer finds in an answer (completion-observer.ts). Pure data; any thread. */

/** What one payload was; a set of bits. */
export const Observed = {
  /** Carries content, reasoning, a tool call or text: progress, not a role-only chunk. */
  token: 1,
  /** `[DONE]`, message_stop, or the last event or state of a response: also a failed one is an answer. */
  done: 2,
  /** An error object in place of an answer. */
  error: 4,
  /** Neither JSON nor `[DONE]`. */
  malformed: 8,
  /** Carries a finish reason. */
  finish: 16,
  /** Carries usage numbers. */
  usage: 32,
  /** Usage alone: `choices` is there and empty. */
  usageOnly: 64,
} as const;
