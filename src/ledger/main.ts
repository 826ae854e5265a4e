/**
 * Entry of the ledger thread (ledger.ts). Event loop; there is one where usage events have a file and
 * somebody wants to know of them: a sink, or a budget.
 *
 * It may die at any moment, and of a package at its worst: the main thread starts another. A line of its
 * log has no secret of a sink, whatever is in the error it tells of.
 */
import { configuredSinks, sinkNames } from '../config/sinks.ts';
import { redisErrorText } from '../redis/errors.ts';
import { LedgerTable } from '../shm/ledger.ts';
import { MetricsWriter } from '../shm/metrics.ts';
import { createThreadLog } from '../shm/thread-log.ts';
import { ThreadPort } from '../shm/thread-port.ts';
import type { LedgerStart, RedisStart, ToThread } from '../shm/threads.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { defaultMetricDims, Result } from '../telemetry/labels.ts';
import { errorText } from '../telemetry/log-fields.ts';
import { RedisBudgets } from './budget-store.ts';
import { Ledger } from './ledger.ts';
import type { SharedBudgets } from './sharing.ts';
import { openSink, secretsOf } from './sinks/open-sink.ts';

/** Of each of two steps; together less than the main thread waits for a thread to stop. */
const closeMs = 700;
const logCloseMs = 500;
/** No request waits for a call about budgets, and many go out together. */
const storeMsMin = 1000;

const port = new ThreadPort<LedgerStart>('ledger');

await run(port.start);

async function run(start: LedgerStart): Promise<void> {
  const { sinks, memory } = start;
  const metrics = new MetricsWriter(start.metrics, defaultMetricDims);
  const log = createThreadLog(port.name, start.log, metrics);
  const secrets = secretsOf(sinks);
  const withoutSecrets = (error: unknown): string =>
    secrets.reduce((text, secret) => text.replaceAll(secret, '***'), errorText(error));
  const table = new LedgerTable(memory.ledger);
  const sharedBudgets = (redis: RedisStart): SharedBudgets => ({
    store: new RedisBudgets(
      { ...redis, timeoutMs: Math.max(storeMsMin, redis.timeoutMs) },
      redis.prefix,
    ),
    onState(isUp, error) {
      table.isStoreUp = isUp;
      if (isUp) log.info('the store of budgets answers');
      else {
        const text = 'the store of budgets does not answer; tenants go by their failure_mode';
        log.error(text, { err: redisErrorText(error) });
      }
    },
    onCall: (isAnswered) =>
      metrics.add(catalogue.budgetStoreCalls, isAnswered ? Result.ok : Result.failed, 1),
    onRefused(tenant, error) {
      const text = `the store of budgets refuses what is asked about ${tenant}`;
      log.error(text, { err: redisErrorText(error) });
    },
  });
  const ledger = new Ledger({
    ...{ path: start.path, acceptors: start.acceptors, budgets: start.budgets, log },
    table,
    ...(start.redis === null ? {} : { shared: sharedBudgets(start.redis) }),
    sinks: configuredSinks(sinks),
    open: (sink) => openSink(sink, sinks),
    onStored: (sink, events) =>
      metrics.addPair(catalogue.usageSinkEvents, sinkNames.indexOf(sink), Result.ok, events),
    onFailed: (sink, events) =>
      metrics.addPair(catalogue.usageSinkEvents, sinkNames.indexOf(sink), Result.failed, events),
    onTrouble(sink, error) {
      if (error === undefined) log.warn(`usage events go to ${sink} again`);
      else log.error(`usage events wait for ${sink}`, { err: withoutSecrets(error) });
    },
    onLost(sink, events) {
      metrics.add(catalogue.usageSinkLost, sinkNames.indexOf(sink), events);
      const text = `usage events are lost to ${sink}: their file is gone, and it never had them`;
      log.error(text, { count: events });
    },
  });
  port.listen((message: ToThread) => {
    switch (message.kind) {
      case 'budgets':
        ledger.setBudgets(message.budgets);
        port.post({ kind: 'budgetsApplied' });
        return;
      case 'stop':
        void stop(ledger, () => log.close(logCloseMs));
    }
  });
  await ledger.start();
  port.post({ kind: 'ready' });
}

async function stop(ledger: Ledger, closeLog: () => Promise<void>): Promise<void> {
  await ledger.close(closeMs);
  await closeLog();
  port.stopped();
}
