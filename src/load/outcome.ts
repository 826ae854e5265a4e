/** How one request of a load run ended. The list is closed: a report names each class or none. */
export const Outcome = {
  ok: 0,
  /** No connection to the target. */
  connect: 1,
  /** The connection broke before the first byte of the answer. */
  reset: 2,
  /** No connection within the limit, or no full answer within it from there. */
  timeout: 3,
  status4xx: 4,
  status5xx: 5,
  statusOther: 6,
  /** The answer ended early: connection lost in the middle, or a stream without its end mark. */
  truncated: 7,
  /** An error event in a stream, or a 200 whose body is an error. */
  errorBody: 8,
  /** Complete, but not what was asked for: foreign request id, wrong token count, extra bytes. */
  mismatch: 9,
  /** Bytes outside the HTTP/1.1 or SSE grammar. */
  malformed: 10,
  /** Still open when the run was stopped. */
  stopped: 11,
} as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

export const outcomeNames = Object.keys(Outcome) as readonly (keyof typeof Outcome)[];
