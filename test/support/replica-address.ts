import type { ReplicaAddress } from '../../src/shm/threads.ts';

/** A row of the replica table as the main thread tells it to a forwarder. */
export function replicaAddress(
  row: number,
  epoch: number,
  url: string,
  options: { readonly apiKey?: string; readonly maxInFlight?: number } = {},
): ReplicaAddress {
  return {
    row,
    epoch,
    name: `r${row}`,
    url,
    apiKey: options.apiKey ?? '',
    maxInFlight: options.maxInFlight ?? 64,
    takesBatches: false,
  };
}
