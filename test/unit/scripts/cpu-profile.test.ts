import { expect, test } from 'vitest';
import { type CpuProfile, readThread } from '../../../scripts/profile/cpu-profile.ts';

const frames = {
  idle: ['(idle)', ''],
  drain: ['drain', 'file:///x/dist/scheduler/loop.js'],
  sleep: ['sleep', 'file:///x/src/shm/doorbell.ts'],
  push: ['push', 'file:///x/src/shm/ring.ts'],
  parse: ['parse', 'file:///x/node_modules/yaml/dist/parse.js'],
} as const;

function profile(samples: readonly (readonly [keyof typeof frames, number])[]): CpuProfile {
  const names = Object.keys(frames);
  return {
    nodes: Object.values(frames).map(([functionName, url], id) => ({
      id,
      callFrame: { functionName, url, lineNumber: 9 },
    })),
    samples: samples.map(([name]) => names.indexOf(name)),
    timeDeltas: samples.map(([, us]) => us),
  };
}

test('self times are summed per function, without the time asleep', () => {
  const seen = readThread(
    profile([
      ['idle', 400],
      ['sleep', 200],
      ['drain', 100],
      ['push', 250],
      ['drain', 50],
    ]),
    10,
  );
  expect(seen).toEqual({
    thread: 'scheduler',
    busyUs: 400,
    totalUs: 1000,
    top: [
      { where: 'push  src/shm/ring.ts:10', us: 250, share: 0.625 },
      { where: 'drain  dist/scheduler/loop.js:10', us: 150, share: 0.375 },
    ],
  });
});

test('a thread without code of a thread folder is main, and the list is cut', () => {
  const seen = readThread(
    profile([
      ['parse', 10],
      ['push', 20],
    ]),
    1,
  );
  expect(seen.thread).toBe('main');
  expect(seen.top.map(({ where }) => where)).toEqual(['push  src/shm/ring.ts:10']);
});

test('a thread that was never busy has no shares', () => {
  expect(readThread(profile([['idle', 5]]), 10)).toEqual({
    thread: 'main',
    busyUs: 0,
    totalUs: 5,
    top: [],
  });
});
