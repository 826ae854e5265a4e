/** What looks at the replicas from the main thread, and how its findings reach log and metrics. */
import type { Config } from '../config/schema.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { Result } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import { HealthChecker } from './health.ts';
import { EngineScraper } from './health-engine.ts';
import type { Membership } from './membership.ts';

export function createHealth(
  config: Config,
  membership: Membership,
  writer: MetricsWriter,
  logger: Logger,
): HealthChecker {
  return new HealthChecker(
    membership,
    config.health,
    (member) => config.models[member.model]?.name ?? '',
    (member, result) => {
      if (result === 'void') return;
      const index = result === 'ok' ? Result.ok : Result.failed;
      writer.addPair(metrics.replicaHealthChecks, member.row, index, 1);
    },
    (member, healthy) => {
      const replica = member.name;
      if (healthy) logger.info('replica is healthy', { replica });
      else logger.warn('replica is unhealthy', { replica, err: member.reason });
    },
  );
}

export function createScraper(
  config: Config,
  membership: Membership,
  logger: Logger,
): EngineScraper {
  return new EngineScraper(membership, config.engine_metrics, ({ name: replica }, reason) => {
    if (reason === '') logger.info('engine reports its load', { replica });
    else logger.warn('engine does not report its load', { replica, err: reason });
  });
}
