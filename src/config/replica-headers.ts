/**
 * Names and values of headers that a replica is sent by its config. Pure.
 *
 * A name is refused that says where a message ends, belongs to one connection or to one request: it would
 * not be sent, or lie. What is wrong with a name that is none is told without it, since it may be a secret
 * in the wrong place.
 */
import { z } from 'zod';
import { isOfConnection } from '../protocol/http-rules.ts';

/** RFC 9110, section 5.6.2. */
const namePattern = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/;
const headersMax = 32;
const valueLengthMax = 4096;
/** Of all names and values: 16 KiB is what many servers take of a head, and the client's part comes to it. */
const textLengthMax = 8192;

/** Of one request each: for all of them the same would mix up answers, bodies or traces. */
const ofOneRequest: ReadonlySet<string> = new Set([
  ...['content-encoding', 'content-type', 'idempotency-key'],
  ...['traceparent', 'tracestate', 'x-request-id'],
]);

function refusalOf(name: string): string | undefined {
  if (name === 'host') return 'must not be set: `url` says which host is asked';
  if (name === 'accept-encoding') return 'must not be set: compressed answers cannot be followed';
  if (isOfConnection(name)) return 'must not be set: it is of one connection, or frames a message';
  if (ofOneRequest.has(name)) return 'must not be set: each request has its own';
  return undefined;
}

/** The header that carries the key of a replica. */
export const keyHeader = () =>
  z
    .string()
    .superRefine((text, context) => {
      const isName = namePattern.test(text);
      const message = isName
        ? refusalOf(text.toLowerCase())
        : 'must be the name of a header, such as api-key';
      if (message !== undefined) context.addIssue({ code: 'custom', message });
    })
    .transform((text) => text.toLowerCase());

const headerValue = () =>
  z
    .string()
    .max(valueLengthMax)
    // It goes into a head as it is: anything but visible ASCII inside of it could split the header.
    .regex(/^(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?$/, {
      error: 'must be ASCII on one line, without spaces around it',
    });

/** Headers by their names, which come out in lower case. Names first: a path with one is printed. */
export const replicaHeaders = () =>
  z
    .record(z.string(), z.unknown())
    .superRefine(checkNames)
    .meta({ additionalProperties: { type: 'string', maxLength: valueLengthMax } })
    .pipe(z.record(z.string(), headerValue()).superRefine(checkLength))
    .transform(
      (headers): Readonly<Record<string, string>> =>
        Object.fromEntries(Object.entries(headers).map(([name, v]) => [name.toLowerCase(), v])),
    );

function checkNames(headers: Readonly<Record<string, unknown>>, context: z.RefinementCtx): void {
  const report = (message: string, path: string[] = []): void =>
    context.addIssue({ code: 'custom', message, path });
  const names = Object.keys(headers);
  if (names.length > headersMax) {
    report(`must have at most ${headersMax} entries`);
    return;
  }
  const seen = new Set<string>();
  for (const [i, name] of names.entries()) {
    const lower = name.toLowerCase();
    if (!namePattern.test(name)) {
      report(`must have names of headers, such as X-Title; number ${i + 1} is none`);
      continue;
    }
    const refusal = seen.has(lower)
      ? 'must not be there twice: capitals make no difference'
      : refusalOf(lower);
    seen.add(lower);
    if (refusal !== undefined) report(refusal, [name]);
  }
}

function checkLength(headers: Readonly<Record<string, string>>, context: z.RefinementCtx): void {
  const length = Object.entries(headers).reduce((sum, pair) => sum + pair.join('').length, 0);
  if (length <= textLengthMax) return;
  const message = `must have at most ${textLengthMax} characters in all names and values`;
  context.addIssue({ code: 'custom', message });
}

interface WithKey {
  readonly api_key: string;
  readonly api_key_header: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** The key goes in a header that is not set once more: of two no replica reads the same. */
export function checkKeyHeader(
  { api_key: key, api_key_header: name, headers }: WithKey,
  context: z.RefinementCtx,
): void {
  if (key === '' || !Object.hasOwn(headers, name)) return;
  const message = 'must not be set: `api_key` is sent in it';
  context.addIssue({ code: 'custom', message, path: ['headers', name] });
}
