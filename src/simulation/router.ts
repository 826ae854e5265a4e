/**
 * Router: what stands between arrivals and replicas in a simulation. Types only.
 *
 * The driver tells it what happens, in the order of virtual time, and it answers through its sink,
 * during the call or at a later one. A request is given out once; after a failed replica, again.
 */

export interface Router {
  /** When tick() has something to do; Infinity for never. */
  readonly nextTimerUs: number;
  tick(nowUs: number): void;
  arrive(request: number, nowUs: number): void;
  firstToken(request: number, nowUs: number): void;
  finished(request: number, nowUs: number): void;
  /** The replica of a running request has died. `retry`: nothing of the answer was out. */
  failed(request: number, retry: boolean, nowUs: number): void;
  replicaUp(row: number, nowUs: number): void;
  /** Called before the requests that ran there fail. */
  replicaDown(row: number, nowUs: number): void;
}

export interface RouterSink {
  dispatch(request: number, row: number): void;
  /** The request ends without an answer. */
  refuse(request: number): void;
}

/** What an engine says of itself when it is asked, as its metrics page does. */
export interface EngineSignals {
  readonly waiting: number;
  readonly running: number;
  /** Share of the KV cache in use, 0 to 1. */
  readonly kvUsage: number;
}

/** What a router is built from. */
export interface RouterContext {
  readonly sink: RouterSink;
  readonly seed: number;
  /** Rows there may be, dead ones and later ones included. */
  readonly rows: number;
  /** Metrics of a replica, as of now. */
  signals(row: number): EngineSignals;
}
