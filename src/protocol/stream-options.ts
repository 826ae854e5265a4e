/**
 * What a replica is asked to tell of the usage of a stream by `stream_options`, and whether it refuses
 * that. Pure; forwarder threads.
 *
 * Engines that know the option need not know `continuous_usage_stats`, which is no part of OpenAI's API.
 * Who refuses names the option, in whatever words: Groq says `property 'stream_options' is unsupported`,
 * pydantic its place (`loc`), zod `unrecognized_keys`, serde the unknown field. So may one that repeats a
 * request which is wrong in another way; whoever leaves the option out will see.
 */
import { Buffer } from 'node:buffer';

/** Each asks for more than the one before. */
export const Asks = { nothing: 0, usageAtEnd: 1, usageAlways: 2 } as const;
export type Asks = (typeof Asks)[keyof typeof Asks];

/** The option, and what it is made of: a parser may name the innermost alone. */
const names = ['stream_options', 'include_usage', 'continuous_usage_stats'];

export const mayRefuseOptions = (status: number): boolean => status === 400 || status === 422;

export function namesOptions(body: readonly Uint8Array[]): boolean {
  const whole = Buffer.concat(body);
  return names.some((name) => whole.includes(name));
}
