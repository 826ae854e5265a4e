/** Where usage events go besides their file. Pure. */
import type { Config } from './schema.ts';

/** Keys of `usage`; the index is that of rows and labels. */
export const sinkNames = ['kafka', 'redis_stream', 'nats'] as const;
export type SinkName = (typeof sinkNames)[number];
export type SinkConfigs = Pick<Config['usage'], SinkName>;
export type SinkConfig<N extends SinkName> = NonNullable<Config['usage'][N]>;

/** Those that the config has. */
export const configuredSinks = (usage: SinkConfigs): SinkName[] =>
  sinkNames.filter((name) => usage[name] !== undefined);
