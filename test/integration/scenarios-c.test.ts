/**
 * System C's own scenarios through the whole gateway; ids as in the inventory of prior art. Those that
 * measure are in scenarios-load.test.ts.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { expectQuiet, testEngines, withGateway } from '../support/gateway.ts';
import { RawClient, rawPost } from '../support/raw-client.ts';
import {
  chatBody,
  chatPath,
  configOf,
  countEvents,
  load,
  openStream,
  withReplicas,
} from '../support/scenario.ts';

/** Runs in the gateway process before its program: SIGUSR2 blocks the main thread, and only that. */
const stallModule = (ms: number): string => `
import { isMainThread } from 'node:worker_threads';
if (isMainThread) {
  const word = new Int32Array(new SharedArrayBuffer(4));
  process.on('SIGUSR2', () => Atomics.wait(word, 0, 0, ${ms}));
}
`;

test('C-01: while the control thread stands still, no request fails and nobody is restarted', async () => {
  // The original stalls for 60 s. No request waits for a clock that this thread winds, so more than the
  // watchdog's own gap (1 s) and many heartbeats is enough; a longer stall would only last longer.
  const stallMs = 3000;
  const folder = mkdtempSync(join(tmpdir(), 'sluice-stall-'));
  const file = join(folder, 'stall.mjs');
  writeFileSync(file, stallModule(stallMs));
  try {
    await withReplicas(2, { profile: 'uniform:2ms-6ms' }, async (replicas) => {
      const nodeFlags = ['--import', pathToFileURL(file).href];
      await withGateway({ config: configOf(replicas), nodeFlags }, async (gateway) => {
        const running = load(gateway, { durationMs: stallMs + 1500, connections: 16 });
        await replicas[0]!.until(({ served }) => served > 50);
        process.kill(gateway.pid, 'SIGUSR2');
        const asked = performance.now();
        const atStart = replicas[0]!.stats().served;
        const { replicas: rows } = await gateway.cluster();
        // The admin listener lives on that thread: its silence shows that the stall was real.
        expect(performance.now() - asked).toBeGreaterThan(stallMs / 2);
        expect(replicas[0]!.stats().served - atStart).toBeGreaterThan(100);
        expect(rows.every(({ healthy }) => healthy)).toBe(true);
        const { metrics } = await running;
        expect(metrics.failed).toBe(0);
        expect([...metrics.statuses.keys()]).toEqual([200]);
        await expectQuiet(gateway);
      });
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const hasCurl = spawnSync('curl', ['--version']).status === 0;

describe.each(testEngines)('C-02 on %s', (engine) => {
  test.runIf(hasCurl)('C-02: curl shows each token before the generation ends', async () => {
    await withReplicas(1, {}, async ([replica]) => {
      const config = configOf([replica!], { listen: { engine } });
      await withGateway({ config }, async (gateway) => {
        const prompt = 'nonce=c [[len=4]] [[fault:hold-after=2]]';
        const body = JSON.stringify(chatBody(prompt, { stream: true, max_tokens: 4 }));
        const args = ['-sN', gateway.url + chatPath, '-H', 'content-type: application/json'];
        const curl = spawn('curl', [...args, '-d', body]);
        let text = '';
        let wake: () => void = () => {};
        curl.stdout.on('data', (chunk: Buffer) => {
          text += chunk.toString();
          wake();
        });
        const closed = new Promise((resolve) => curl.once('close', resolve));
        await replica!.gate.arrivals(1);
        while (!text.includes('c:1:')) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        expect(text).not.toContain('c:2:');
        replica!.gate.release();
        expect(await closed).toBe(0);
        expect(text).toContain('c:3:');
        expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
        expect(countEvents(text)).toBeGreaterThanOrEqual(6);
      });
    });
  });

  test('C-02, WC-1: an unknown path is a whole 404 with a length, not an empty stream', async () => {
    const config = configOf([{ url: 'http://127.0.0.1:1' }], { listen: { engine } });
    await withGateway({ config }, async (gateway) => {
      const client = await RawClient.connect(gateway.port);
      await client.send(rawPost('/v1/chat/tinyllama', { prompt: 'x' }));
      await client.closed;
      const { responses, trailingBytes, problem } = await client.responses();
      expect(problem).toBeUndefined();
      expect(trailingBytes).toHaveLength(0);
      expect(responses).toHaveLength(1);
      const [answer] = responses;
      expect(answer!.status).toBe(404);
      expect(answer!.headers.get('transfer-encoding')).toBeUndefined();
      expect(Number(answer!.headers.get('content-length'))).toBe(answer!.body.length);
      expect(JSON.parse(answer!.body.toString()).error.code).toBe('unknown_url');
    });
  });
});

test('C-05: 950 streams on 4 replicas: 237.5 each within 4 %, and all of them end whole', async () => {
  await withReplicas(4, {}, async (replicas) => {
    await withGateway({ config: configOf(replicas) }, async (gateway) => {
      const body = { stream: true, max_tokens: 4 };
      const streams = Array.from({ length: 950 }, () =>
        openStream(gateway.url, chatBody('[[hold]] [[len=4]]', body)),
      );
      const held = (): number[] => replicas.map((replica) => replica.stats().held);
      await expect
        .poll(() => held().reduce((a, b) => a + b, 0), { timeout: 20_000, interval: 20 })
        .toBe(950);
      console.info(`C-05: ${held().join(' ')}`);
      for (const count of held()) {
        expect(count).toBeGreaterThanOrEqual(228);
        expect(count).toBeLessThanOrEqual(247);
      }
      const { replicas: rows } = await gateway.cluster();
      expect(rows.map((row) => row.in_flight)).toEqual(held());
      for (const replica of replicas) replica.gate.release();
      for (const stream of await Promise.all(streams)) {
        const { text, cut } = await stream.ended;
        expect(cut).toBe(false);
        expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
      }
      await expectQuiet(gateway);
    });
  });
});
