/** The programmatic API: a gateway from a config object, in the process of the caller. */
import { configFromObject } from './config/load.ts';
import { formatProblem } from './config/problems.ts';
import type { ConfigInput } from './config/schema.ts';
import { Gateway } from './gateway/gateway.ts';
import type { Addresses } from './gateway/gateway-options.ts';

export type { ConfigInput } from './config/schema.ts';
export type { Addresses } from './gateway/gateway-options.ts';

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
 * Throws an Error that names the problems of the config, or why this machine cannot run it. `onFatal`
 * hears of a thread that died; the caller should then `close()` and start another gateway.
 */
export function createGateway(
  config: ConfigInput,
  onFatal: (reason: string, error: unknown) => void,
): GatewayHandle {
  const loaded = configFromObject(config);
  if (!loaded.ok) throw new Error(loaded.problems.map(formatProblem).join('\n'));
  return new Gateway({ config: loaded.config, onFatal });
}
