/**
 * Token probe: asks a replica for one token, because an engine that hangs may answer its health path all
 * the same. Runs on the main thread; only for replicas that stand still (Stillness) and where the config
 * allows it, since a token costs and an engine with one place answers only after what it has.
 */
import { type Dispatcher, request } from 'undici';
import { urlAt } from '../protocol/replica-base.ts';
import { type Member, ownHeadersOf } from './membership.ts';

export interface TokenProbeOptions {
  /** Milliseconds. */
  readonly timeout: number;
  /** Name of the model that the replica serves. */
  readonly model: string;
}

/** Rejects with the reason when no token comes in time. A refusal (4xx) is a sign of life. */
export async function probeToken(
  member: Member,
  dispatcher: Dispatcher,
  { timeout, model }: TokenProbeOptions,
): Promise<void> {
  const { statusCode, body } = await request(urlAt(member.url, '/v1/chat/completions'), {
    dispatcher,
    method: 'POST',
    signal: AbortSignal.timeout(timeout),
    headersTimeout: timeout,
    bodyTimeout: timeout,
    headers: [...ownHeadersOf(member), 'content-type', 'application/json'],
    body: JSON.stringify({ model, messages: [{ role: 'user', content: 'ping' }], max_tokens: 1 }),
  });
  await body.dump({ limit: 1 << 20 });
  if (statusCode >= 500) throw new Error(`token probe answered ${statusCode}`);
}

/** How long a replica has had requests of ours and has not sent a byte of an answer. */
export class Stillness {
  #busySinceMs: number | undefined;

  /** Looks at it; `progressMs` is when its last byte came, 0 for never. Milliseconds. */
  look(nowMs: number, inFlight: number, progressMs: number): number {
    if (inFlight === 0) this.#busySinceMs = undefined;
    else this.#busySinceMs ??= nowMs;
    return this.#busySinceMs === undefined ? 0 : nowMs - Math.max(this.#busySinceMs, progressMs);
  }
}
