/**
 * Whether a replica refuses a request for `stream_options`, which it does not know. Pure; forwarder threads.
 *
 * The body names the option then, in whatever words: of Groq `property 'stream_options' is unsupported`, of
 * pydantic its place (`loc`), of zod `unrecognized_keys`. So may one that repeats a request which is wrong
 * in another way; whoever leaves the option out will see.
 */
import { Buffer } from 'node:buffer';

const option = Buffer.from('stream_options');

export const mayRefuseOptions = (status: number): boolean => status === 400 || status === 422;

export const namesOptions = (body: readonly Uint8Array[]): boolean =>
  Buffer.concat(body).includes(option);
