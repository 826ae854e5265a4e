/** How an entry of the catalogue is written down. Pure; any thread. */

export interface ErrorEntry {
  readonly name: string;
  readonly number: number;
  readonly status: number;
  readonly type: string;
  readonly code: string;
  readonly param: string | null;
  readonly source: 'client' | 'gateway' | 'upstream';
  readonly flag: string;
  readonly retry: 'never' | 'beforeFirstByte';
  /** Seconds for `retry-after`; 0: the header is not sent. */
  readonly retryAfterS: number;
  readonly message: string;
  readonly hint: string;
}

export type Entry = Omit<ErrorEntry, 'name'>;
/** What an entry says, and what differs from the usual of its source. */
export interface Words {
  readonly message: string;
  readonly hint: string;
  readonly type?: string;
  readonly param?: string;
  readonly retryAfterS?: number;
  readonly retry?: 'never';
  readonly status?: number;
}

export const client = (
  number: number,
  status: number,
  code: string,
  flag: string,
  words: Words,
): Entry =>
  entry(
    'client',
    'never',
    number,
    status,
    words.type ?? 'invalid_request_error',
    code,
    flag,
    words,
  );

export const gateway = (
  number: number,
  status: number,
  code: string,
  flag: string,
  words: Words,
): Entry =>
  entry('gateway', 'never', number, status, words.type ?? 'overloaded', code, flag, words);

export const upstream = (number: number, code: string, flag: string, words: Words): Entry =>
  entry(
    'upstream',
    words.retry ?? 'beforeFirstByte',
    number,
    words.status ?? 502,
    words.type ?? 'server_error',
    code,
    flag,
    words,
  );

export function entry(
  source: ErrorEntry['source'],
  retry: ErrorEntry['retry'],
  number: number,
  status: number,
  type: string,
  code: string,
  flag: string,
  words: Words,
): Entry {
  const param = words.param ?? null;
  const retryAfterS = words.retryAfterS ?? 0;
  const { message, hint } = words;
  return { number, status, type, code, param, source, flag, retry, retryAfterS, message, hint };
}
