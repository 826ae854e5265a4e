/** The adapters of a model: every name that one of its replicas has, in the order of the file. Pure. */
interface WithAdapters {
  readonly replicas: readonly { readonly adapters: readonly string[] }[];
}

/** A name's place in this list, counted from 1, is the number the adapter has inside the gateway. */
export function adaptersOf({ replicas }: WithAdapters): string[] {
  return [...new Set(replicas.flatMap(({ adapters }) => adapters))];
}
