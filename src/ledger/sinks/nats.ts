/**
 * NATS JetStream: one message per event with its id as `Nats-Msg-Id`, so that the stream itself leaves out
 * what comes again within its duplicate window. The stream must be there: without one that takes the
 * subject every event waits. Ledger thread.
 */
import type { SinkConfig } from '../../config/sinks.ts';
import { readPems, sinkTimeoutMs, type UsageSink } from './sink.ts';

export async function openNats(config: SinkConfig<'nats'>): Promise<UsageSink> {
  const [{ connect, headers: messageHeaders }, { jetstream }] = await Promise.all([
    import('@nats-io/transport-node'),
    import('@nats-io/jetstream'),
  ]);
  const { servers, username, password, token, tls, subject } = config;
  const connection = await connect({
    name: 'sluice',
    servers: [...servers],
    ...(username === '' ? {} : { user: username }),
    ...(password === '' ? {} : { pass: password }),
    ...(token === '' ? {} : { token }),
    ...(tls === undefined ? {} : { tls: readPems(tls) }),
    timeout: sinkTimeoutMs,
    reconnect: false,
  });
  const stream = jetstream(connection, { timeout: sinkTimeoutMs });
  return {
    async send(records) {
      const published = records.map(({ id, tenant, line }) => {
        const headers = messageHeaders();
        headers.set('Sluice-Tenant', tenant ?? '');
        const to = subject.replaceAll('{tenant}', tenant?.replaceAll('.', '_') ?? '_');
        return stream.publish(to, line, { msgID: id, headers, timeout: sinkTimeoutMs });
      });
      await Promise.all(published);
    },
    close: () => connection.close().catch(() => {}),
  };
}
