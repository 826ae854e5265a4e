/** A header of a request head, as a replica recorded it; undefined where there is none. */
export const headerOf = (head: string, name: string): string | undefined =>
  new RegExp(`^${name}: (.*?)\\r?$`, 'im').exec(head)?.[1];
