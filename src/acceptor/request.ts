/**
 * One request of one client, from its head to the last byte of its answer. Acceptor threads.
 *
 * Holds what the slot table does not: the exchange, the arena block and the bytes of the answer that
 * the client has not taken. Its owner acts on it (ingest.ts, responder.ts); here is only state.
 */
import type { ErrorEntry } from '../errors/catalogue.ts';
import type { Due } from '../lib/due-list.ts';
import type { Route } from '../protocol/routes.ts';
import type { Asker } from './answers.ts';
import type { Holder } from './key-ring.ts';
import type { Exchange, ExchangePeer } from './listener.ts';
import type { ModelTable } from './model-table.ts';
import { Outbox } from './outbox.ts';
import type { RequestTrace } from './tracing.ts';
import type { UploadCount } from './uploads.ts';

/**
 * reading: the body arrives. published: the scheduler or a forwarder has it. settled: the outcome is
 * fixed and the client may still read. over: slot and arena block are given back.
 */
export const Phase = { reading: 0, published: 1, settled: 2, over: 3 } as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

export interface RequestOwner {
  body(request: Request, bytes: Uint8Array, isLast: boolean): void;
  writable(request: Request): void;
  gone(request: Request): void;
}

/** What is known of a request once its head was read. */
export interface RequestFacts extends Asker {
  readonly route: Route | undefined;
  readonly contentType: string;
  readonly arrivedUs: number;
  /** -1 for a chunked body. */
  readonly contentLength: number;
  readonly sessionId: string;
  /** The response that its path names; '' where it names none. */
  readonly responseId: string;
  /** Whom of a cascade the client wants: large, small or '', whoever it is. */
  readonly cascade: string;
  /** Whose request it is; undefined where nobody is asked for a key. */
  readonly holder: Holder | undefined;
  /** By which it goes to its end. */
  readonly models: ModelTable;
  /** Its place in a trace; undefined: it is not traced. */
  readonly trace: RequestTrace | undefined;
  /** The answer says why it came from its replica. */
  readonly wantsExplain: boolean;
}

export class Request implements ExchangePeer, Due<Request> {
  /** Among the streams that are silent (acceptor-state.ts). */
  dueUs = 0;
  sooner: Request | undefined;
  later: Request | undefined;
  readonly exchange: Exchange;
  readonly facts: RequestFacts;
  readonly outbox: Outbox;
  readonly #owner: RequestOwner;
  phase: Phase = Phase.reading;
  slot = -1;
  /** Lease of attempt 0; its generation names the request. */
  lease = 0;
  /** Offset of the arena block: header blob, then the body from bodyStart on. -1: none. */
  block = -1;
  bodyStart = 0;
  bodyLength = 0;
  /** Its body is counted there (uploads.ts); undefined: it is not, or no longer. */
  upload: UploadCount | undefined;
  model = -1;
  /** Adapter of the model, counted from 1; 0 for none. */
  adapter = 0;
  /** The query of its path asks for a stream. */
  asksForStream = false;
  /** Hash of the name of what it asks for; 0: nothing that is known. */
  askedName = 0;
  /** Row of the only replica that can serve it, and its epoch; -1: any can. */
  pin = -1;
  pinEpoch = 0;
  /** Its body has another name than that of the model: it came for a split. */
  isRenamed = false;
  /** The reply of its model may be discarded for that of a larger one. */
  isJudged = false;
  /** Status the client was given, or would have been where its head was ours; 0 before. */
  status = 0;
  /** Why the answer failed, though its status may say otherwise. */
  failure: ErrorEntry | undefined;
  /** Why its connection was cut from here; undefined: it was not. */
  cutFor: ErrorEntry | undefined;
  isGone = false;
  isEventStream = false;
  /** The client has our own head and comments (keep-alive.ts) and nothing of an answer. */
  isKeptAlive = false;
  /** Last bytes of the answer so far (protocol/event-end.ts). */
  tail = 0;
  /** Bytes of text that an estimate let pass (context-limit.ts); 0: none did. */
  textBytes = 0;
  /** The answer is the gateway's own (own-answers.ts). */
  isOwn = false;
  /** Complete but for what the outbox keeps. */
  isEnding = false;
  /** Bytes taken when slow readers were last looked for; -1: never. */
  seenTaken = -1;
  /** Credit when the forwarder was last woken for it. */
  toldBytes = 0;

  constructor(exchange: Exchange, facts: RequestFacts, owner: RequestOwner) {
    this.exchange = exchange;
    this.facts = facts;
    this.outbox = new Outbox(exchange);
    this.#owner = owner;
  }

  body(bytes: Uint8Array, isLast: boolean): void {
    this.#owner.body(this, bytes, isLast);
  }

  writable(): void {
    this.#owner.writable(this);
  }

  gone(): void {
    this.#owner.gone(this);
  }
}
