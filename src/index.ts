/** The programmatic API: a gateway from a config object, in the process of the caller. */
import { resolveEngine } from './acceptor/uws-binary.ts';
import { configFromObject } from './config/load.ts';
import { formatProblem } from './config/problems.ts';
import type { ConfigInput } from './config/schema.ts';
import { type Addresses, Gateway } from './gateway/gateway.ts';
import { version } from './gateway/version.ts';
import { createLogger, type LogLevel } from './telemetry/log.ts';

export type { ConfigInput } from './config/schema.ts';
export type { Addresses } from './gateway/gateway.ts';

export interface GatewayHandle {
  /** Starts the threads, probes every replica once and listens. Once per gateway. */
  listen(): Promise<Addresses>;
  /** Stops taking requests, waits for those in flight at most `drain.timeout`, closes. */
  drain(): Promise<void>;
  /** Cuts what is in flight with error events and closes. */
  close(): Promise<void>;
}

/**
 * A gateway that is not listening yet. `config` has the keys of the config file (docs/configuration.md).
 * Throws an Error that names every problem of the config. `onFatal` hears of a thread that died;
 * the caller should then `close()` and start another gateway.
 */
export function createGateway(
  config: ConfigInput,
  onFatal: (reason: string, error: unknown) => void,
): GatewayHandle {
  const loaded = configFromObject(config);
  if (!loaded.ok) throw new Error(loaded.problems.map(formatProblem).join('\n'));
  const resolved = resolveEngine(loaded.config.listen.engine);
  if ('refused' in resolved) throw new Error(resolved.refused);
  const { log } = loaded.config;
  const logger = createLogger({
    thread: 'main',
    level: log.level as LogLevel,
    pretty: log.pretty === 'always',
    access: { rate: log.sample, slowMs: Number.POSITIVE_INFINITY },
    onDrop: () => {},
  });
  if (resolved.fallback !== '') logger.warn(resolved.fallback);
  const { engine } = resolved;
  return new Gateway({ config: loaded.config, engine, logger, version, onFatal });
}
