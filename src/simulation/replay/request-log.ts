/**
 * A log of requests as they came, for `sluice simulate --replay`: one JSON object a line. Pure.
 *
 *   at_ms          when it arrived, counted from anywhere
 *   body           the JSON body: as an object, or as the text that was sent, byte for byte
 *   path           /v1/chat/completions, the default, or another route that generates
 *   headers        those a gateway reads: authorization, x-session-id, x-sluice-priority, x-sluice-deadline-ms
 *   output_tokens  tokens of its answer; absent: what `sluice replica` would answer
 */
import { z } from 'zod';
import { createRequestFacts } from '../../protocol/request-facts.ts';
import { scanRequest } from '../../protocol/request-scanner.ts';

const Line = z.strictObject({
  at_ms: z.number().min(0),
  body: z.union([z.string(), z.record(z.string(), z.unknown())]),
  path: z.string().default('/v1/chat/completions'),
  headers: z.record(z.string(), z.string()).default({}),
  output_tokens: z.int().min(1).optional(),
});

export interface LoggedRequest {
  /** Line of the file, from 1. */
  readonly line: number;
  readonly atUs: number;
  readonly path: string;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
  readonly outputTokens: number | undefined;
}

/** A line that cannot be replayed. */
export class ReplayError extends Error {
  override name = 'ReplayError';

  constructor(line: number, message: string) {
    super(`line ${line}: ${message}`);
  }
}

/** The requests in order of arrival, at least one; equal times stay in the order of the file. */
export function readRequestLog(text: string): LoggedRequest[] {
  const requests = text.split('\n').flatMap((line, i) => {
    return line.trim() === '' ? [] : [readLine(line, i + 1)];
  });
  if (requests.length === 0) throw new ReplayError(1, 'no request in the file');
  return requests.sort((a, b) => a.atUs - b.atUs);
}

/** The name in the first body; '' when there is none. */
export function modelOf([first]: readonly LoggedRequest[]): string {
  const facts = createRequestFacts();
  if (first !== undefined) scanRequest(first.body, first.body.length, facts);
  return facts.model;
}

function readLine(text: string, line: number): LoggedRequest {
  const parsed = Line.safeParse(parseJson(text, line));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new ReplayError(line, `${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`.trim());
  }
  const { at_ms, body, path, headers, output_tokens } = parsed.data;
  return {
    line,
    atUs: Math.round(at_ms * 1000),
    path,
    headers: new Map(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value])),
    body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
    outputTokens: output_tokens,
  };
}

function parseJson(text: string, line: number): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new ReplayError(line, 'is no JSON');
  }
}
