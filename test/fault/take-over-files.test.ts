/** SIGUSR2 with a usage file: two processes write it for a while, and one of them renames it. */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { GatewayProcess } from '../support/gateway.ts';
import { linesOf } from '../support/lines-of.ts';
import { chatBody, post } from '../support/scenario.ts';
import { alone, expectWhole, heldStreams, startMs, supervised } from '../support/take-over.ts';
import { eventually } from '../support/until.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-overlap-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const maxBytes = 64 * 1024;
const file = 'usage.ndjson';
/** More than two files of the least size. */
const many = 400;
const files = (): string[] => readdirSync(folder).filter((name) => !name.includes('ledger'));
const sizeOf = (name: string): number => statSync(join(folder, name)).size;
/** Of whole lines; none of a file that was renamed on the way. */
const requestIds = (): string[] =>
  files()
    .flatMap((name) => linesOf(join(folder, name)).slice(0, -1))
    .map((line) => JSON.parse(line).req_id as string);

/**
 * Asks of so many requests, some at a time; resolves with their ids. Each by a connection of its own: one that is
 * kept alive is of the process that took it, which goes on serving it.
 */
async function ask(gateway: GatewayProcess, count: number): Promise<string[]> {
  const ids: string[] = [];
  const client = async (): Promise<void> => {
    while (count-- > 0) {
      const { status, headers } = await post(
        gateway.url,
        chatBody('x [[len=1]]', { max_tokens: 1 }),
        { connection: 'close' },
      );
      expect(status).toBe(200);
      ids.push(headers.get('x-request-id') ?? '');
    }
  };
  await Promise.all(Array.from({ length: 8 }, client));
  return ids;
}

test('only the older one renames; then the new one does, and each event is there once', {
  timeout: 4 * startMs,
}, async () => {
  const usage = { file: join(folder, file), max_size: `${maxBytes}B`, keep: 50 };
  await supervised({ usage }, async (gateway, replica) => {
    const readings = await heldStreams(gateway, replica, 2);
    const before = await ask(gateway, many);
    const old = gateway.servingPid;
    gateway.kill('SIGUSR2');
    await eventually(
      'the new one is asked',
      async () => (await gateway.cluster()).pid !== old,
      startMs,
    );
    await eventually('all is written', () => requestIds().length >= before.length);
    const renamed = files().length;
    expect(renamed).toBeGreaterThan(2);
    const during = await ask(gateway, many);
    await eventually('all is written', () => requestIds().length >= 2 * many);
    expect(files()).toHaveLength(renamed);
    expect(sizeOf(file)).toBeGreaterThan(2 * maxBytes);
    replica.gate.release();
    await expectWhole(readings);
    await alone(gateway);
    const after = await ask(gateway, many);
    expect(await gateway.stop()).toEqual({ code: 0, signal: null });
    expect(files().length).toBeGreaterThan(renamed + 1);
    const ids = requestIds();
    expect(ids).toHaveLength(3 * many + readings.length);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toEqual(expect.arrayContaining([...before, ...during, ...after]));
  });
});
