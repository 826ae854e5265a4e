/**
 * What the names that clients send stand for, and which model of a split serves a request. Acceptor
 * threads; no allocation per request.
 *
 * A point of the circle of 2^32 falls on one of the models, each of which has its share of it: that of a
 * session is the hash of its key, on every acceptor the same; others take the golden ratio's steps, which
 * meets the weights within one or two requests. A weight that changes moves the sessions at its border
 * and no others.
 */
import { type ModelRef, modelsByName, type SplitRow } from '../config/model-names.ts';
import { refOf } from '../config/tenants.ts';
import { mix32 } from '../lib/mix32.ts';
import { hashSession } from '../protocol/request-keys.ts';
import type { ModelRow } from '../shm/threads.ts';
import type { AcceptorState } from './acceptor-state.ts';

interface Split {
  readonly targets: readonly ModelRef[];
  /** Where the share of each ends, in ascending order. */
  readonly ends: readonly number[];
}

const circle = 2 ** 32;
const goldenStep = 0x9e3779b1;

export class ModelNames {
  readonly byName: ReadonlyMap<string, ModelRef>;
  readonly #models: readonly ModelRow[];
  readonly #splits: readonly Split[];
  readonly #hash = new Int32Array(2);
  #point = 0;
  /** Of the names of models, adapters and splits, by refOf and back: numbers of splits are those of one file. */
  readonly #hashes = new Map<number, number>();
  readonly #byHash = new Map<number, ModelRef>();

  constructor(models: readonly ModelRow[], splits: readonly SplitRow[] = []) {
    this.byName = modelsByName(models, splits);
    this.#models = models;
    this.#splits = splits.map(splitOf);
    const own = models.flatMap(({ name, adapters = [] }) => [name, ...adapters]);
    for (const name of [...own, ...splits.map((split) => split.name)]) {
      const ref = this.byName.get(name) as ModelRef;
      const hash = this.#pointOf(name) | 0;
      this.#hashes.set(refOf(ref.model, ref.adapter), hash);
      this.#byHash.set(hash, ref);
    }
  }

  /** Hash of the name of the model, adapter or split, the same after a reload; as an int32. */
  hashOf({ model, adapter }: ModelRef): number {
    return this.#hashes.get(refOf(model, adapter)) as number;
  }

  /** Whose name has the hash; undefined: there is nobody any more. */
  named(hash: number): ModelRef | undefined {
    return this.#byHash.get(hash);
  }

  isSplit({ model }: ModelRef): boolean {
    return model >= this.#models.length;
  }

  /** Whether the name, which stands for `ref`, is one that its replicas need not know: an alias or a split. */
  isOfGateway(name: string, ref: ModelRef): boolean {
    return this.isSplit(ref) || this.nameOf(ref.model, ref.adapter) !== name;
  }

  /** Who serves a request for the name; '' for a request without a session. */
  serving(ref: ModelRef, session: string): ModelRef {
    if (!this.isSplit(ref)) return ref;
    const { targets, ends } = this.#splits[ref.model - this.#models.length] as Split;
    const point = session === '' ? this.#nextPoint() : this.#pointOf(session);
    let index = 0;
    while (index < ends.length - 1 && point >= (ends[index] as number)) index++;
    return targets[index] as ModelRef;
  }

  /** Who serves in place of the model, for a prompt of so many bytes or by the wish of the client; undefined: nobody. */
  larger({ model, adapter }: ModelRef, promptBytes: number, wish: string): ModelRef | undefined {
    const cascade = adapter === 0 ? this.#models[model]?.cascade : undefined;
    if (cascade === undefined || wish === 'small') return undefined;
    const isLong = cascade.promptBytes > 0 && promptBytes >= cascade.promptBytes;
    return isLong || wish === 'large' ? cascade : undefined;
  }

  /**
   * As whom a model serves requests for the name: of a split, in a cascade, as a fallback of these; undefined: it
   * never does. Under the first of `adapters` by which it does, else under any.
   */
  reaching(ref: ModelRef, model: number, adapters: readonly number[] = []): ModelRef | undefined {
    const targets = this.isSplit(ref)
      ? (this.#splits[ref.model - this.#models.length] as Split).targets
      : [ref];
    const onward = targets.flatMap((target) => this.#onward(target));
    const all = [...targets, ...onward].filter((target) => target.model === model);
    const adapter = adapters.find((wanted) => all.some((target) => target.adapter === wanted));
    return all.find((target) => target.adapter === adapter) ?? all[0];
  }

  /** Who may come after the model: a cascade is taken once for the prompt and once for the reply. */
  #onward({ model, adapter }: ModelRef, cascades = 2): ModelRef[] {
    const { cascade, fallbacks = [], contextFallbacks = [] } = this.#models[model] ?? {};
    const lists = [...fallbacks, ...contextFallbacks];
    if (cascade === undefined || adapter !== 0 || cascades === 0) return lists;
    return [cascade, ...lists, ...this.#onward(cascade, cascades - 1)];
  }

  /** The replies of the model are judged; those of its adapters are not. */
  isJudged({ model, adapter }: ModelRef): boolean {
    return adapter === 0 && this.#models[model]?.cascade?.onReply !== undefined;
  }

  /** Name of the model or of its adapter; undefined for none. */
  nameOf(model: number, adapter: number): string | undefined {
    const row = this.#models[model];
    return adapter === 0 ? row?.name : row?.adapters?.[adapter - 1];
  }

  #nextPoint(): number {
    this.#point = (this.#point + goldenStep) >>> 0;
    return this.#point;
  }

  #pointOf(name: string): number {
    hashSession(name, this.#hash, 0);
    return mix32((this.#hash[0] as number) ^ mix32(this.#hash[1] as number)) >>> 0;
  }
}

function splitOf({ targets }: SplitRow): Split {
  const served = targets.filter(({ weight }) => weight > 0);
  const total = served.reduce((sum, { weight }) => sum + weight, 0);
  let until = 0;
  const ends = served.map(({ weight }) => {
    until += weight;
    return (until / total) * circle;
  });
  return { targets: served, ends };
}

/** Name of the model, or of its adapter, that the request is with. */
export function servingModel({ models, slots }: AcceptorState, slot: number): string | undefined {
  const { words, at } = slots;
  const row = slots.row(slot);
  return models.names.nameOf(words[row + at.model] as number, words[row + at.adapter] as number);
}
