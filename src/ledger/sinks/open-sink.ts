/** Which sink is which. Ledger thread. */
import type { SinkConfigs, SinkName } from '../../config/sinks.ts';
import { openKafka } from './kafka.ts';
import { openNats } from './nats.ts';
import { openRedisStream } from './redis-stream.ts';
import type { UsageSink } from './sink.ts';

/** Rejects when the server cannot be reached or lets nobody in. */
export async function openSink(name: SinkName, sinks: SinkConfigs): Promise<UsageSink> {
  const { kafka, redis_stream: redis, nats } = sinks;
  if (name === 'kafka' && kafka !== undefined) return openKafka(kafka);
  if (name === 'redis_stream' && redis !== undefined) return openRedisStream(redis);
  if (name === 'nats' && nats !== undefined) return openNats(nats);
  throw new Error(`${name} is not configured`);
}

/** What must not be in a log line, whatever a package puts into its errors. */
export function secretsOf({ kafka, redis_stream: redis, nats }: SinkConfigs): string[] {
  const all = [kafka?.sasl?.password, redis?.password, nats?.password, nats?.token];
  return all.filter((text) => text !== undefined && text !== '') as string[];
}
