/**
 * What the two kinds of answer (event-stream.ts, whole-answer.ts) ask of the exchange that carries
 * them. Types only; forwarder threads.
 */
import type { Usage } from '../protocol/completion-observer.ts';
import type { AnswerShape } from '../protocol/routes.ts';
import type { Failure } from './failure.ts';

export interface AnswerSink {
  /** Nothing has been given to the client yet, so the attempt can be replaced. */
  readonly committed: boolean;
  /** Begins the answer: head and all that follows reach the client. False: the attempt is over. */
  commit(): boolean;
  /** Body bytes for the client, in order; only after commit. The view must stay valid. */
  emit(bytes: Uint8Array): void;
  /** The whole answer at once, in place of commit, emit and complete. */
  whole(body: readonly Uint8Array[]): void;
  /** Content came: `events` token events. */
  token(events: number): void;
  /** Something other than content came that shows the replica at work. */
  progress(): void;
  /** A malformed event was left out of the stream. */
  dropped(): void;
  complete(): void;
  /** The reply is not wanted: a larger model is to answer. Only before commit. */
  discard(cause: Failure): void;
  fail(failure: Failure): void;
}

export interface Answer {
  /** What the replica has said so far that the answer used. */
  readonly usage: Usage | undefined;
  /** Its own, as the replica has said; '' before. */
  readonly id: string;
  push(chunk: Uint8Array): void;
  /** Nothing more comes: the exchange ended in order, or with what `broken` says. */
  end(broken: Failure | undefined): void;
}

/** What is known of an answer once its head is there. */
export interface AnswerFacts {
  readonly status: number;
  readonly shape: AnswerShape;
  readonly choices: number;
  readonly contentLength: number;
  /** Content-length or chunked: the connection alone tells a cut from an end. */
  readonly framed: boolean;
  readonly isJson: boolean;
  /** Another model may take a prompt that is too long for this one. */
  readonly mayGoOn?: boolean;
  /** The request had an option that its client did not send, and the status may mean that. */
  readonly mayAskAgain?: boolean;
}
