/** The names of adapters, and the numbers these have inside the gateway. Pure. */
import { assert } from '../lib/assert.ts';
import { adaptersMax } from './capacities.ts';

interface WithAdapters {
  readonly replicas: readonly { readonly adapters: readonly string[] }[];
  readonly lora?: { readonly adapters: readonly { readonly name: string }[] } | undefined;
}

/**
 * Every adapter that one of the model's replicas has or could load, in the order of the file.
 * A name's place in this list, counted from 1, is the number the adapter has inside the gateway.
 */
export function adaptersOf(model: WithAdapters): string[] {
  return [...new Set([...keptAdapters(model), ...loadableAdapters(model)])];
}

/** Those that replicas have from their start. */
export const keptAdapters = ({ replicas }: Pick<WithAdapters, 'replicas'>): string[] =>
  replicas.flatMap(({ adapters }) => adapters);

/** Those that a replica loads when a request asks for them. */
export const loadableAdapters = ({ lora }: Pick<WithAdapters, 'lora'>): string[] =>
  lora?.adapters.map(({ name }) => name) ?? [];

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
