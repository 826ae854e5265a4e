/**
 * Load of several tenants on a gateway: open loop, in phases of constant rates, or closed. One record
 * for each request, over the connections and parsers of `sluice bench`.
 *
 * Latency counts from the intended time. Connections are opened as they are needed, up to a bound that
 * a run which refuses in time never reaches; a request beyond it is a record that was not served.
 */
import { nowUs } from '../../src/lib/clock.ts';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { createArrivals, type NextGapUs } from '../../src/load/arrivals.ts';
import { Connection, type ConnectionTarget } from '../../src/load/connection.ts';
import { Outcome } from '../../src/load/outcome.ts';
import {
  type LiveBody,
  type LiveRecord,
  type LiveSize,
  liveBodies,
  tenantCount,
} from './requests.ts';

export interface Phase {
  readonly seconds: number;
  /** Requests per second of each tenant; none for those left out. */
  readonly rates: readonly number[];
}

export interface LiveRun {
  readonly startUs: number;
  readonly records: readonly LiveRecord[];
  /** How late the generator itself was with a request, 99th percentile. */
  readonly lagP99Ms: number;
}

const connectionsMax = 4000;
const tickMs = 1;
/** An answer that takes longer is given up: nothing here should. */
const answerMsMax = 60_000;
const sweepMs = 500;

interface Source {
  readonly tenant: number;
  readonly phase: number;
  readonly gapUs: NextGapUs;
  readonly endUs: number;
  nextUs: number;
}

interface Pending {
  readonly tenant: number;
  readonly phase: number;
  readonly size: LiveSize;
}

export class LiveLoad {
  readonly #target: ConnectionTarget;
  readonly #bodies: readonly (readonly LiveBody[])[];
  readonly #random: Prng;
  readonly #idle: Connection[] = [];
  readonly #busy = new Map<Connection, Pending>();
  #records: LiveRecord[] = [];
  #issued = 0;
  #runs = 0;
  #onEnd: () => void = () => {};

  constructor(port: number, seed: number) {
    this.#target = { host: '127.0.0.1', port };
    this.#bodies = liveBodies(port, seed);
    this.#random = createPrng(seed);
  }

  /** One phase after the other; resolves when the last answer is there. */
  async open(phases: readonly Phase[]): Promise<LiveRun> {
    const startUs = nowUs();
    const sources = sourcesOf(phases, startUs, this.#random);
    const endUs = startUs + phases.reduce((sum, { seconds }) => sum + seconds * 1e6, 0);
    return await this.#run(startUs, () => {
      const atUs = nowUs();
      for (const source of sources) {
        while (source.nextUs <= atUs && source.nextUs < source.endUs) {
          this.#send(source.tenant, source.phase, source.nextUs);
          source.nextUs += source.gapUs();
        }
      }
      return atUs >= endUs;
    });
  }

  /** So many requests in flight, the first so many tenants in turn, for that time. */
  async closed(concurrency: number, seconds: number, tenants = tenantCount): Promise<LiveRun> {
    const startUs = nowUs();
    const endUs = startUs + seconds * 1e6;
    const fill = (): boolean => {
      const atUs = nowUs();
      while (atUs < endUs && this.#busy.size < concurrency) {
        this.#send(this.#issued % tenants, 0, atUs);
      }
      return atUs >= endUs;
    };
    return await this.#run(startUs, fill);
  }

  close(): void {
    for (const connection of this.#idle) connection.close();
  }

  /** `issue` sends what is due and says when there will be no more. */
  async #run(startUs: number, issue: () => boolean): Promise<LiveRun> {
    this.#records = [];
    this.#runs++;
    await new Promise<void>((resolve) => {
      let isOver = false;
      const look = (): void => {
        isOver ||= issue();
        if (!isOver || this.#busy.size > 0) return;
        clearInterval(tick);
        clearInterval(sweep);
        resolve();
      };
      this.#onEnd = look;
      const tick = setInterval(look, tickMs);
      const sweep = setInterval(() => this.#sweep(), sweepMs);
    });
    this.#onEnd = () => {};
    const records = this.#records;
    const lags = records.map(({ sentUs, intendedUs }) => (sentUs - intendedUs) / 1000);
    return { startUs, records, lagP99Ms: quantile(lags, 0.99) };
  }

  #send(tenant: number, phase: number, intendedUs: number): void {
    const bodies = this.#bodies[tenant] ?? [];
    const { body, size } = bodies[this.#random.below(bodies.length)] as LiveBody;
    const pending = { tenant, phase, size };
    const connection = this.#idle.pop() ?? this.#connect();
    if (connection === undefined) {
      this.#records.push(unsent(pending, intendedUs));
      return;
    }
    this.#busy.set(connection, pending);
    const id = `live-${process.pid}-${this.#runs}-${this.#issued++}`;
    connection.exchange.begin(id, intendedUs, nowUs(), true);
    connection.send(body);
  }

  #connect(): Connection | undefined {
    if (this.#busy.size >= connectionsMax) return undefined;
    return new Connection(
      this.#target,
      { stream: true, tokens: -1 },
      () => {},
      (connection, outcome, atUs) => this.#finished(connection, outcome, atUs),
    );
  }

  #finished(connection: Connection, outcome: Outcome, atUs: number): void {
    const pending = this.#busy.get(connection) as Pending;
    this.#busy.delete(connection);
    this.#idle.push(connection);
    const { exchange } = connection;
    const { status, queueMs } = exchange.parser;
    this.#records.push({
      ...{ ...pending, intendedUs: exchange.intendedUs, sentUs: exchange.sentUs },
      ...{ firstUs: exchange.firstTokenUs, endUs: atUs, queueMs, status },
      isServed: outcome === Outcome.ok && exchange.outputTokens === pending.size.outputTokens,
      isRefused: status === 429 || status === 503,
    });
    this.#onEnd();
  }

  #sweep(): void {
    const limitUs = nowUs() - answerMsMax * 1000;
    for (const connection of this.#busy.keys()) {
      if (connection.exchange.takenUs < limitUs) connection.abandon(Outcome.timeout);
    }
  }
}

function sourcesOf(phases: readonly Phase[], startUs: number, random: Prng): Source[] {
  let fromUs = startUs;
  return phases.flatMap(({ seconds, rates }, phase) => {
    const beginUs = fromUs;
    const endUs = beginUs + seconds * 1e6;
    fromUs = endUs;
    return rates.flatMap((rate, tenant): Source[] => {
      if (rate === 0) return [];
      const gapUs = createArrivals(rate, 1, random);
      return [{ tenant, phase, gapUs, endUs, nextUs: beginUs + gapUs() }];
    });
  });
}

function unsent(pending: Pending, atUs: number): LiveRecord {
  return {
    ...{ ...pending, intendedUs: atUs, sentUs: atUs, firstUs: 0, endUs: atUs, queueMs: -1 },
    ...{ status: 0, isServed: false, isRefused: false },
  };
}
