/**
 * What both HTTP engines offer: a Listener, and one Exchange per request.
 *
 * Types only. Runs on an acceptor thread; nothing here may block. Invariants every engine keeps: no
 * exception leaves it; after `gone` or a finished answer every call is harmless; at most
 * `corkBytesMax` bytes go into one write burst, and none after a write was refused.
 */
import type { TlsFiles } from '../shm/threads.ts';
import type { EdgeHead } from './edge-head.ts';

/** uWebSockets.js corrupts chunked framing above 16 KiB a cork on a full socket (its issue 1249). */
export const corkBytesMax = 12 * 1024;
/** Room the status line and headers of an answer may take of the first burst. */
export const headBytesMax = 4 * 1024;
/** The largest body that one `answer` carries. */
export const answerBytesMax = corkBytesMax - headBytesMax;

/**
 * The least time after which an engine cuts a client that takes nothing of its answer: uWebSockets.js
 * does after 8 to 12 s (its own limit of 10 s, looked at every 4 s).
 */
export const stalledMsMin = 7500;

/** What a refused client may still send, and for how long, so that it reads its answer. */
export const discardMs = 1000;
export const discardBytesMax = 64 * 1024 * 1024;

/** What happens to the connection after the answer. */
export const Closing = {
  keep: 0,
  /** The head says close; the client does it. */
  announce: 1,
  /** The connection is closed from here: bytes behind this request must never be read as another. */
  force: 2,
} as const;
export type Closing = (typeof Closing)[keyof typeof Closing];

export interface Exchange {
  /** False once the client has left or the answer is complete. */
  readonly isOpen: boolean;
  /** True from a refused write until `writable`. */
  readonly isBlocked: boolean;
  /** Bytes handed over that the connection may not have taken yet; 0 unless blocked. */
  readonly unconfirmedBytes: number;
  /** True once the status line has been given to `begin` or `answer`. */
  readonly hasBegun: boolean;
  closing: Closing;
  /** A complete answer of at most answerBytesMax. `headers` is a flat list of names and values. */
  answer(status: number, headers: readonly string[], body: Uint8Array): void;
  /**
   * As `answer`, from a later turn of the loop, and the connection is closed behind it. `body` must
   * stay. With `isBodyDue` the rest of a well-framed request is read and thrown away first, within
   * `discardMs` and `discardBytesMax`: closed at once, the client would meet a reset, not its answer.
   */
  answerAndClose(
    status: number,
    headers: readonly string[],
    body: Uint8Array,
    isBodyDue?: boolean,
  ): void;
  /** Opens a streamed answer; the head leaves with the first bytes. */
  begin(status: number, headers: readonly string[]): void;
  /** Hands over bytes of data[start, end); returns how many were taken. The rest waits for `writable`. */
  write(data: Uint8Array, start: number, end: number): number;
  /**
   * Completes a streamed answer. Call when nothing is left to write. Where it leaves `isBlocked` true,
   * `writable` tells when the last byte is taken, or `gone` that it will not be.
   */
  end(): void;
  /** Drops the connection in the middle of whatever it is in. */
  cut(): void;
}

/** The other side of an exchange: what the acceptor does with it. */
export interface ExchangePeer {
  /** `bytes` are valid during the call only. */
  body(bytes: Uint8Array, isLast: boolean): void;
  writable(): void;
  /** The client left before the answer was complete. Called at most once. */
  gone(): void;
}

export interface ListenerHandler {
  /** False while connections are refused: the one that has just been opened is to be closed. */
  takesConnection(): boolean;
  /** A request head that passed the edge rules. Undefined: it has been refused or answered. */
  open(head: EdgeHead, exchange: Exchange): ExchangePeer | undefined;
  /** A head that broke them; must call exchange.answerAndClose. */
  reject(error: number, head: EdgeHead, exchange: Exchange): void;
  /** An exception was caught: a defect of ours. */
  failed(error: unknown): void;
}

export interface ListenerOptions {
  readonly host: string;
  readonly port: number;
  readonly tls: TlsFiles | null;
  readonly maxConnections: number;
}

export interface Listener {
  readonly port: number;
  /** Open client connections. */
  readonly connections: number;
  /** Closes the listening socket once its queue is empty; connections stay. Once, and before `close`. */
  stopListening(): Promise<void>;
  /** Closes the listening socket and every connection. */
  close(): Promise<void>;
}
