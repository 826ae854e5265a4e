/**
 * Connections to replicas: one undici Pool per replica generation (row and epoch). Forwarder threads.
 *
 * A replaced address is another epoch and so another pool: no socket of the old replica is ever used
 * for the new one. Forgetting a replica stops new requests at once and lets streams end.
 */

import type { Socket } from 'node:net';
import { buildConnector, Client, type Dispatcher, Pool } from 'undici';
import { OwnHeaders } from '../protocol/own-headers.ts';
import { ReplicaPaths } from '../protocol/replica-base.ts';
import { Asks } from '../protocol/stream-options.ts';
import type { ReplicaAddress } from '../shm/threads.ts';
import { replicaLookup } from './replica-lookup.ts';

/** Handlers learn which connection carries them. */
export interface ConnectionUser extends Dispatcher.DispatchHandler {
  readonly link: { connection: ReplicaConnection | undefined };
}

/** uvicorn closes idle connections after 5 s without a hint; a longer idle time here means resets. */
const keepAliveMs = 4000;
/** An engine may be replaced behind its address by one that knows what was refused. */
const refusalUs = 600_000_000;
const headerBytesMax = 16 * 1024;

type Connect = buildConnector.connector;

/** One connection at a time to a replica, whose socket and use can be asked for. */
export class ReplicaConnection extends Client {
  /** The socket in use or being connected. */
  socket: Socket | undefined;
  /** Requests this socket has carried before the one at hand. */
  served = 0;

  constructor(origin: string | URL, options: Client.Options, connect: Connect) {
    super(origin, {
      ...options,
      connect: (target, callback) => {
        // The connector of undici returns its socket, which its types do not say.
        const socket = connect(target, callback) as unknown as Socket;
        this.socket = socket;
        this.served = 0;
      },
    });
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: ConnectionUser): boolean {
    handler.link.connection = this;
    return super.dispatch(options, handler);
  }
}

export class ReplicaPool {
  readonly address: ReplicaAddress;
  readonly paths: ReplicaPaths;
  /** Sent with every request. */
  readonly own: OwnHeaders;
  readonly #origin: string;
  /** When streams are asked for their usage again, and for that of every chunk, which was refused. */
  #askAtEndUs = 0;
  #askAlwaysUs = 0;
  readonly #options: Client.Options;
  readonly #connect: Connect;
  readonly #pool: Pool;

  constructor(address: ReplicaAddress, connectMs: number) {
    this.address = address;
    this.paths = new ReplicaPaths(address.url);
    this.own = new OwnHeaders(address);
    this.#origin = this.paths.base.origin;
    this.#connect = buildConnector({
      timeout: connectMs,
      allowH2: false,
      lookup: replicaLookup,
    });
    this.#options = {
      pipelining: 1, // an SSE answer would block everything behind it
      keepAliveTimeout: keepAliveMs,
      keepAliveMaxTimeout: keepAliveMs,
      maxHeaderSize: headerBytesMax,
      headersTimeout: 0, // clocks.ts watches every attempt; undici would set a timer for each
      bodyTimeout: 0,
      maxResponseSize: -1, // streams may be long; answers that are not are bounded in whole-answer.ts
    };
    // A quarter more than may run: an answer that is over may be read out for a second (exchange.ts),
    // and the request that takes its place must not wait for that.
    this.#pool = new Pool(this.#origin, {
      ...this.#options,
      allowH2: false,
      connections: address.maxInFlight + Math.ceil(address.maxInFlight / 4),
      connect: this.#connect,
      factory: (origin) => new ReplicaConnection(origin, this.#options, this.#connect),
    });
  }

  /** What streams may be asked of their usage that their clients have not asked for. */
  takes(us: number): Asks {
    if (us < this.#askAtEndUs) return Asks.nothing;
    return us < this.#askAlwaysUs ? Asks.usageAtEnd : Asks.usageAlways;
  }

  /** The replica refused what was asked, which cost the request at hand a second call. */
  refused(asked: Asks, us: number): void {
    if (asked === Asks.usageAlways) this.#askAlwaysUs = us + refusalUs;
    else this.#askAtEndUs = us + refusalUs;
  }

  dispatch(options: Dispatcher.DispatchOptions, handler: ConnectionUser): void {
    this.#pool.dispatch(options, handler);
  }

  /** Sends on a connection made for this request, which closes after it. */
  dispatchFresh(options: Dispatcher.DispatchOptions, handler: ConnectionUser): void {
    const connection = new ReplicaConnection(this.#origin, this.#options, this.#connect);
    connection.dispatch({ ...options, reset: true }, handler);
    connection.close(() => {});
  }

  /** No new requests; connections close as their requests end. */
  close(): void {
    this.#pool.close(() => {});
  }

  destroy(): void {
    this.#pool.destroy(null, () => {});
  }
}

export class ReplicaPools {
  readonly #connectMs: number;
  /** Pool of each row of the replica table. */
  readonly #rows: (ReplicaPool | undefined)[] = [];

  constructor(connectMs: number, replicas: readonly ReplicaAddress[]) {
    this.#connectMs = connectMs;
    for (const replica of replicas) this.put(replica);
  }

  /** Takes a replica into use; an older epoch of the row is forgotten. */
  put(replica: ReplicaAddress): void {
    const known = this.#rows[replica.row];
    if (known?.address.epoch === replica.epoch) return;
    known?.close();
    while (this.#rows.length <= replica.row) this.#rows.push(undefined);
    this.#rows[replica.row] = new ReplicaPool(replica, this.#connectMs);
  }

  forget(row: number, epoch: number): void {
    const pool = this.#rows[row];
    if (pool?.address.epoch !== epoch) return;
    this.#rows[row] = undefined;
    pool.close();
  }

  /** The pool of that generation of the row; undefined when it is another or none. */
  find(row: number, epoch: number): ReplicaPool | undefined {
    const pool = this.#rows[row];
    return pool?.address.epoch === epoch ? pool : undefined;
  }

  destroy(): void {
    for (const pool of this.#rows.splice(0)) pool?.destroy();
  }
}
