/**
 * Notes which replica keeps a response, before the client can know its id. Forwarder threads.
 *
 * A forwarder that dies in between has sent nothing of the answer either. The id may be of an answer that
 * breaks off, or that the engine does not keep: then the engine says so when it is asked.
 */
import { responseKeyWords, writeResponseKey } from '../protocol/response-key.ts';
import { routeOf } from '../protocol/routes.ts';
import { responsesOf, type SharedMemory } from '../shm/memory.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { ReplicaLookup } from '../shm/replica-lookup.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import type { RequestSlots } from '../shm/request-slots.ts';
import { createKeeper, Kept, StoredResponses } from '../shm/stored-responses.ts';
import type { ReplicaAddress } from '../shm/threads.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { ResponseEvent } from '../telemetry/labels.ts';

const events = {
  [Kept.fresh]: ResponseEvent.kept,
  [Kept.evicting]: ResponseEvent.evicted,
  [Kept.not]: ResponseEvent.lost,
} as const;

export class ResponseKeeper {
  readonly #slots: RequestSlots;
  readonly #metrics: MetricsWriter;
  readonly #table: StoredResponses;
  readonly #replicas: ReplicaLookup;
  readonly #key = new Int32Array(responseKeyWords);
  readonly #keeper = createKeeper();

  constructor(memory: SharedMemory, slots: RequestSlots, metrics: MetricsWriter) {
    this.#slots = slots;
    this.#metrics = metrics;
    this.#table = new StoredResponses(memory.responses, responsesOf(memory.size));
    this.#replicas = new ReplicaLookup(memory.replicas);
  }

  /** The answer to the request of the row is one that an engine stores. */
  isStored(row: number, status: number): boolean {
    const { words, at } = this.#slots;
    const { shape } = routeOf(words[row + at.route] as number);
    if (shape !== 'responses' || status >= 300) return false;
    return ((words[row + at.flags] as number) & RequestFlag.unstored) === 0;
  }

  /** The replica has answered the request of the row with a response of that id. */
  keep(row: number, replica: ReplicaAddress, id: string): void {
    const { words, at } = this.#slots;
    const keeper = this.#keeper;
    this.#replicas.read(replica.row, keeper);
    if (keeper.epoch !== replica.epoch) return; // it has left meanwhile
    keeper.adapter = words[row + at.adapter] as number;
    keeper.name = words[row + at.askedName] as number;
    writeResponseKey(words, row + at.owner, id, this.#key);
    const kept = this.#table.keep(this.#key, keeper);
    this.#metrics.add(catalogue.storedResponses, events[kept], 1);
    if (kept === Kept.evicting) this.#metrics.add(catalogue.storedResponses, ResponseEvent.kept, 1);
  }
}
