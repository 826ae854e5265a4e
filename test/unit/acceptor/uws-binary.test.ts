import { expect, test } from 'vitest';
import {
  checkUwsBinary,
  noClientCertificates,
  recordedBinaries,
  resolveEngine,
} from '../../../src/acceptor/uws-binary.ts';

const name = `${process.platform}_${process.arch}_${process.versions.modules}`;

test.runIf(name in recordedBinaries)('the installed binary is the recorded one', () => {
  expect(checkUwsBinary()).toEqual({ ok: true });
  expect(recordedBinaries.linux_x64_127).toBe(
    '8cabc918bbf9a07323e54f89a33882491080b2eb35df0607f473ccdb1f3c31af',
  );
});

test('another binary is refused with both digests', () => {
  const check = checkUwsBinary({ [name]: '0'.repeat(64) });
  expect(check).toMatchObject({ ok: false, reason: expect.stringMatching(/[0-9a-f]{64}.*0{64}/) });
});

test('a machine without a recorded binary is told so', () => {
  expect(checkUwsBinary({})).toEqual({
    ok: false,
    reason: `no uWebSockets.js binary is recorded for ${name}`,
  });
});

test('auto falls back to node and says why; uws does not', () => {
  const bad = { ok: false, reason: 'because' } as const;
  expect(resolveEngine('auto', false, bad)).toEqual({
    engine: 'node',
    fallback: 'listen.engine auto runs as node: because',
  });
  expect(resolveEngine('uws', false, bad)).toEqual({ refused: 'because' });
  expect(resolveEngine('node', false, bad)).toEqual({ engine: 'node', fallback: '' });
  expect(resolveEngine('auto', false, { ok: true })).toEqual({ engine: 'uws', fallback: '' });
});

test('client certificates are left to the engine that checks them', () => {
  expect(resolveEngine('auto', true)).toMatchObject({ engine: 'node' });
  expect(resolveEngine('uws', true)).toEqual({ refused: noClientCertificates });
  expect(resolveEngine('node', true)).toEqual({ engine: 'node', fallback: '' });
});
