/** The names of adapters, and the numbers these have inside the gateway. Pure. */
import { assert } from '../lib/assert.ts';
import { adaptersMax } from './capacities.ts';

interface WithAdapters {
  readonly replicas: readonly { readonly adapters: readonly string[] }[];
}

/**
 * Every adapter that one of the model's replicas has, in the order of the file.
 * A name's place in this list, counted from 1, is the number the adapter has inside the gateway.
 */
export function adaptersOf({ replicas }: WithAdapters): string[] {
  return [...new Set(replicas.flatMap(({ adapters }) => adapters))];
}

/** One bit for each of the model's adapters that is among `own`, from adapter 1 on. */
export function adapterBits(all: readonly string[], own: readonly string[]): Int32Array {
  const bits = new Int32Array(adaptersMax / 32);
  for (const name of own) {
    const bit = all.indexOf(name);
    assert(bit >= 0, 'the model knows the adapter');
    bits[bit >>> 5] = (bits[bit >>> 5] as number) | (1 << (bit & 31));
  }
  return bits;
}
