/**
 * Redis Streams: one entry per event with the fields `id`, `tenant` and `event`; the stream is trimmed to
 * about `maxlen`. Stored is what the server has taken: whether it outlives the server is `appendonly` of
 * its own config. Ledger thread.
 */
import type { SinkConfig } from '../../config/sinks.ts';
import { parseNode, serverName } from '../../redis/nodes.ts';
import { readPems, sinkTimeoutMs, type UsageSink } from './sink.ts';

/** `timeoutMs`: see sinkTimeoutMs. */
export async function openRedisStream(
  config: SinkConfig<'redis_stream'>,
  timeoutMs = sinkTimeoutMs,
): Promise<UsageSink> {
  const { createClient } = await import('@redis/client');
  const { url, username, password, tls, stream, maxlen } = config;
  const { host, port } = parseNode(url);
  const client = createClient({
    ...(username === '' ? {} : { username }),
    ...(password === '' ? {} : { password }),
    socket: {
      ...{ host, port },
      connectTimeout: timeoutMs,
      // One that has nothing to send is closed as well, were it not for the pings.
      socketTimeout: 2 * timeoutMs,
      reconnectStrategy: false,
      ...(tls === undefined ? {} : { tls: true as const, ...serverName(host), ...readPems(tls) }),
    },
    pingInterval: timeoutMs / 2,
    disableOfflineQueue: true,
    clientInfoTag: 'sluice',
  });
  client.on('error', () => {}); // whoever waits for an answer hears of it
  try {
    await client.connect();
  } catch (error) {
    client.destroy();
    throw error;
  }
  const trim = { strategy: 'MAXLEN', strategyModifier: '~', threshold: maxlen } as const;
  const options = maxlen === 0 ? {} : { TRIM: trim };
  return {
    async send(records) {
      const added = records.map(({ id, tenant, line }) =>
        client.xAdd(stream, '*', { id, tenant: tenant ?? '', event: line }, options),
      );
      await Promise.all(added);
    },
    async close() {
      if (client.isOpen) client.destroy();
    },
  };
}
