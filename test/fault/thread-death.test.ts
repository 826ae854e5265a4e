/** What a thread throws beside a request: an acceptor goes on, a thread that cannot start is heard of. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { ThreadHandle } from '../../src/gateway/thread-handle.ts';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import { chatBody, configOf, openStream, post, withReplicas } from '../support/scenario.ts';

const folder = mkdtempSync(join(tmpdir(), 'sluice-death-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs in every thread before its program; once the file `trigger` is there, one kind of thread throws. */
const saboteur = (thread: string, trigger: string): string => `
import { existsSync, rmSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
if (workerData?.thread === '${thread}') {
  setInterval(() => {
    if (!existsSync('${trigger}')) return;
    rmSync('${trigger}');
    throw new Error('injected');
  }, 10);
}
`;

function sabotage(thread: string): { nodeFlags: string[]; strike: () => void } {
  const module = join(folder, `${thread}.mjs`);
  const trigger = join(folder, `${thread}.now`);
  writeFileSync(module, saboteur(thread, trigger));
  return {
    nodeFlags: ['--import', pathToFileURL(module).href],
    strike: () => writeFileSync(trigger, ''),
  };
}

async function busyStream(gateway: GatewayProcess) {
  const stream = await openStream(gateway.url, chatBody('[[len=2000]]', { max_tokens: 2000 }));
  await stream.until((text) => text.includes(':0:'));
  return stream;
}

const profile = 'tokens:ttft=5ms,itl=20ms';

test('an acceptor catches what is thrown beside a request and serves on', async () => {
  await withReplicas(1, { profile }, async ([replica]) => {
    const { nodeFlags, strike } = sabotage('acceptor');
    const options = { config: configOf([replica!]), nodeFlags, unquiet: 'its stream goes on' };
    await withGateway(options, async (gateway) => {
      const stream = await busyStream(gateway);
      strike();
      await gateway.said('injected');
      expect((await post(gateway.url, chatBody('x [[len=1]]'))).status).toBe(200);
      const before = stream.text().length;
      await stream.until((text) => text.length > before + 1000);
    });
  });
});

test('a thread that cannot start is heard of, with its own words', async () => {
  const heard: [string, unknown][] = [];
  const thread = new ThreadHandle('scheduler', 'scheduler', { thread: 'scheduler' }, (...death) => {
    heard.push(death);
  });
  await expect(thread.ready()).rejects.toThrow(TypeError);
  expect(heard).toHaveLength(1);
  expect(heard[0]?.[0]).toBe('scheduler');
  expect(heard[0]?.[1]).toBeInstanceOf(TypeError);
});
