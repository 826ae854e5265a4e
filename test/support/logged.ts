/** What the access log of a gateway says of a request; its config needs `log: {level: info, sample: 1}`. */
import { expect } from 'vitest';
import type { GatewayProcess } from './gateway.ts';
import { reached } from './traffic.ts';

/** The one line of a request. */
export async function logged(
  gateway: GatewayProcess,
  requestId: string,
): Promise<Record<string, unknown>> {
  const find = (): string[] =>
    gateway
      .output()
      .split('\n')
      .filter((line) => line.includes(`"${requestId}"`));
  const [line, ...more] = await reached(
    () => Promise.resolve(find()),
    ({ length }) => length > 0,
    `${requestId} is in the log`,
    5000,
  );
  expect(more).toEqual([]);
  return JSON.parse(line!) as Record<string, unknown>;
}
