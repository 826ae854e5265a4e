/**
 * One event per request that reached a replica, once it is over: who asked for what, what was delivered, how
 * it ended. Acceptor threads.
 *
 * The numbers are those of the slot row, which the forwarder has summed up over all attempts of which the
 * client has a part: a retry, a hedge or a continuation counts once.
 */
import { uuidv7 } from '../protocol/request-id.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import type { AcceptorStart } from '../shm/threads.ts';
import { metrics } from '../telemetry/catalogue.ts';
import type { Logger } from '../telemetry/log.ts';
import { UsageFile } from '../telemetry/usage-file.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Request } from './request.ts';

/** How a request ended. */
export type UsageOutcome = 'ok' | 'error' | 'client_gone';

export function openUsage(
  { usage, index, memory }: AcceptorStart,
  counters: MetricsWriter,
  log: Logger,
): UsageFile | undefined {
  if (usage === null) return undefined;
  const path = memory.size.acceptors === 1 ? usage.path : ofAcceptor(usage.path, index);
  return new UsageFile({
    ...{ path, maxBytes: usage.maxBytes, keep: usage.keep, bufferBytesMax: usage.bufferBytesMax },
    onDrop: (lines) => counters.add(metrics.usageDropped, 0, lines),
    onFailure: (error) => {
      if (error === undefined) log.warn('usage events are written again');
      else log.error('usage events wait: the file cannot be written', { err: error });
    },
  });
}

/** `usage.ndjson` of acceptor 1 is `usage.1.ndjson`. */
function ofAcceptor(path: string, index: number): string {
  const dot = path.lastIndexOf('.');
  return dot > path.lastIndexOf('/') + 1
    ? `${path.slice(0, dot)}.${index}${path.slice(dot)}`
    : `${path}.${index}`;
}

export function writeUsage(
  state: AcceptorState,
  request: Request,
  outcome: UsageOutcome,
  error: string | undefined,
  ms: number,
): void {
  const { usage, slots, start, replicaNames } = state;
  const attempts = slots.attempts(request.slot);
  if (usage === undefined || attempts === 0) return;
  const { words, at } = slots;
  const row = slots.row(request.slot);
  const { facts, status } = request;
  const adapter = words[row + at.adapter] as number;
  const ofModel = start.models[words[row + at.model] as number];
  const firstTokenUs = slots.readTime(request.slot, at.firstTokenUs);
  const read = (field: number): number | null => {
    const value = words[row + field] as number;
    return value < 0 ? null : value;
  };
  const event = {
    id: uuidv7(),
    time: new Date().toISOString(),
    req_id: facts.requestId,
    tenant: facts.holder?.tenantName ?? null,
    key_id: facts.holder?.keyId ?? null,
    model: ofModel?.name ?? null,
    adapter: adapter === 0 ? null : (ofModel?.adapters?.[adapter - 1] ?? null),
    route: facts.route?.path ?? null,
    replica: replicaNames[slots.servingReplica(request.slot)] ?? null,
    stream: ((words[row + at.flags] as number) & RequestFlag.stream) !== 0,
    outcome,
    status,
    error: error ?? null,
    attempts,
    hedges: words[row + at.hedges] as number,
    input_tokens: read(at.promptTokens),
    output_tokens: read(at.completionTokens),
    cached_tokens: read(at.cachedTokens),
    ttft_ms:
      firstTokenUs > facts.arrivedUs ? Math.round((firstTokenUs - facts.arrivedUs) / 1000) : null,
    duration_ms: Math.round(ms),
  };
  usage.add(`${JSON.stringify(event)}\n`);
}
