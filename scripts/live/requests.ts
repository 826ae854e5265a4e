/**
 * The requests of a live run: ten tenants, each with a key of its own, short prompts and answers of
 * known lengths. What became of each is one record. Pure.
 */
import { createRequestTemplate, type RequestBody } from '../../src/load/request-template.ts';
import { model } from '../bench/replicas.ts';

/** Their keys fall into ten different lanes of the gateway. */
export const tenantCount = 10;
/** The one that floods. */
export const heavy = 0;

/** Prompts stay within one block of the prefix index, so none is cheaper for having been seen. */
const promptBytes = [240, 960, 1920] as const;
const outputTokens = [16, 32, 48] as const;

/** As a simulated replica counts. */
const bytesPerToken = 3;
export const outputTokensMax = Math.max(...outputTokens);

export interface LiveRecord {
  readonly tenant: number;
  /** Number of the phase in which it was due. */
  readonly phase: number;
  readonly intendedUs: number;
  readonly sentUs: number;
  /** 0 when there was none. */
  readonly firstUs: number;
  readonly endUs: number;
  /** In the gateway's queue; -1 when the answer does not say. */
  readonly queueMs: number;
  /** What was asked for. */
  readonly size: LiveSize;
  readonly status: number;
  /** A whole answer of that size. */
  readonly isServed: boolean;
  /** Turned away with a status that says so: 429 or 503. */
  readonly isRefused: boolean;
}

export interface LiveSize {
  readonly promptTokens: number;
  readonly outputTokens: number;
}

export interface LiveBody {
  readonly body: RequestBody;
  readonly size: LiveSize;
}

/** Bodies of each tenant, of all sizes alike. */
export function liveBodies(port: number, seed: number): readonly (readonly LiveBody[])[] {
  return Array.from({ length: tenantCount }, (_, tenant) => {
    const sizes = promptBytes.flatMap((bytes) => outputTokens.map((tokens) => ({ bytes, tokens })));
    return sizes.flatMap(({ bytes, tokens }, i) => {
      const { bodies } = createRequestTemplate(
        {
          ...{ endpoint: '/v1/chat/completions', model, stream: true, ignoreEos: true },
          ...{ inputTokens: 0, promptBytes: bytes, outputTokens: tokens },
          seed: seed + tenant * sizes.length + i,
        },
        `127.0.0.1:${port}`,
        { authorization: `Bearer tenant-${tenant}` },
      );
      const size = { promptTokens: Math.ceil(bytes / bytesPerToken), outputTokens: tokens };
      return bodies.map((body) => ({ body, size }));
    });
  });
}
