/**
 * One event per request that reached a replica, once it is over: who asked for what, what was delivered, how
 * it ended. Acceptor threads.
 *
 * The numbers are those of the slot row, which the forwarder has summed up over all attempts of which the
 * client has a part: a retry, a hedge or a continuation counts once. What nobody has counted is estimated
 * (billed.ts).
 */
import { costInBillionths, fromBillionths, type Price } from '../lib/price.ts';
import { uuidv7 } from '../protocol/request-id.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import type { AcceptorStart } from '../shm/threads.ts';
import { metrics } from '../telemetry/catalogue.ts';
import type { Logger } from '../telemetry/log.ts';
import { UsageFile } from '../telemetry/usage-file.ts';
import { usagePathOf } from '../telemetry/usage-path.ts';
import type { AcceptorState, Control } from './acceptor-state.ts';
import type { Billed } from './billed.ts';
import type { Request } from './request.ts';

/** How a request ended. */
export type UsageOutcome = 'ok' | 'error' | 'client_gone';

export function openUsage(
  { usage, index, memory }: AcceptorStart,
  { words, sharesFiles }: Control,
  counters: MetricsWriter,
  log: Logger,
): UsageFile | undefined {
  if (usage === null) return undefined;
  const path = usagePathOf(usage.path, index, memory.size.acceptors);
  return new UsageFile({
    ...{ path, maxBytes: usage.maxBytes, keep: usage.keep, bufferBytesMax: usage.bufferBytesMax },
    mayRename: () => Atomics.load(words, sharesFiles) === 0,
    onDrop: (lines) => counters.add(metrics.usageDropped, 0, lines),
    onFailure: (error) => {
      if (error === undefined) log.warn('usage events are written again');
      else log.error('usage events wait: the file cannot be written', { err: error });
    },
    onRenameFailure: (error) => {
      if (error === undefined) log.warn('usage files are renamed again');
      else log.error('the usage file grows past its size: it cannot be renamed', { err: error });
    },
  });
}

export function writeUsage(
  state: AcceptorState,
  request: Request,
  { input, output, cached, estimated }: Billed,
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
  const ofModel = facts.models.rows[words[row + at.model] as number];
  const firstTokenUs = slots.readTime(request.slot, at.firstTokenUs);
  const cost = costOf(ofModel?.price, input, cached, output);
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
    input_tokens: input,
    output_tokens: output,
    cached_tokens: cached,
    estimated,
    cost,
    currency: cost === null ? null : (start.usage?.currency ?? null),
    ttft_ms:
      firstTokenUs > facts.arrivedUs ? Math.round((firstTokenUs - facts.arrivedUs) / 1000) : null,
    duration_ms: Math.round(ms),
  };
  usage.add(`${JSON.stringify(event)}\n`);
}

/** Null where nothing is known, or has no price. */
function costOf(
  price: Price | null | undefined,
  input: number | null,
  cached: number | null,
  output: number | null,
): number | null {
  if (price === null || price === undefined || (input === null && output === null)) return null;
  return fromBillionths(costInBillionths(price, input ?? 0, cached ?? 0, output ?? 0));
}
