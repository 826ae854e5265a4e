/** Why a call to Redis failed where that matters; any other error is of the connection. */

/** No answer in time; the connection may be all right, and this machine busy. */
export class LateError extends Error {}

/** The server is there and refuses this call: what it has under these names is something else. */
export class RefusedError extends Error {}

/** For a log: never with the address, since it may have a password. */
export function redisErrorText(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return String(code ?? message).replaceAll(/redis[s]?:\/\/\S+/g, 'redis://…');
}
