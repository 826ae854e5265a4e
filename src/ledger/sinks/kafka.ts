/**
 * Kafka: one message per event, keyed by tenant, so that events of a tenant are in one partition and in
 * order; stored once all replicas in sync have it (`acks` all). Ledger thread.
 */
import type { SASLOptions } from 'kafkajs';
import type { SinkConfig } from '../../config/sinks.ts';
import { readPems, sinkTimeoutMs, type UsageSink } from './sink.ts';

export async function openKafka({
  brokers,
  topic,
  tls,
  sasl,
}: SinkConfig<'kafka'>): Promise<UsageSink> {
  const { Kafka, logLevel, Partitioners } = (await import('kafkajs')).default;
  const kafka = new Kafka({
    clientId: 'sluice',
    brokers: [...brokers],
    ...(tls === undefined ? {} : { ssl: readPems(tls) }),
    // It writes into what it is given; a config is frozen.
    ...(sasl === undefined ? {} : { sasl: { ...sasl } as SASLOptions }),
    connectionTimeout: sinkTimeoutMs,
    authenticationTimeout: sinkTimeoutMs,
    requestTimeout: sinkTimeoutMs,
    // Who waits, and how long, is the courier's to decide; a moved partition is looked up again at once.
    retry: { retries: 2, initialRetryTime: 100, maxRetryTime: 1000 },
    logLevel: logLevel.NOTHING,
  });
  const producer = kafka.producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    maxInFlightRequests: 1,
  });
  try {
    await producer.connect();
  } catch (error) {
    await producer.disconnect().catch(() => {});
    throw error;
  }
  return {
    async send(records) {
      const messages = records.map(({ id, tenant, line }) => {
        return { key: tenant, value: line, headers: { id } };
      });
      await producer.send({ topic, acks: -1, timeout: sinkTimeoutMs, messages });
    },
    close: () => producer.disconnect().catch(() => {}),
  };
}
