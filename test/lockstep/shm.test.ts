import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { explore } from './explorer.ts';
import { ringWorld } from './request-ring.searches.ts';
import { prove } from './search.ts';
import { loadModules, suites } from './suites.ts';

const modules = await loadModules(new URL('../../src/', import.meta.url));

for (const { file, searches } of suites) {
  describe(`${file}: every interleaving keeps the promises`, () => {
    for (const search of searches(modules)) {
      test(search.name, () => {
        const report = prove(search);
        console.log(`${file}, ${search.name}: ${report.states} states`);
        expect(report.stuck).toBe(0);
        expect(report.ends).toBeGreaterThan(0);
      });
    }
  });
}

test('every file of src/shm that changes shared words has a suite', () => {
  const folder = new URL('../../src/shm/', import.meta.url);
  // The hooks change nothing that threads share: they break what others do with it.
  const atomic = readdirSync(folder)
    .filter((name) => name !== 'fault-hooks.ts')
    .filter((name) => /\bAtomics\.(?!load\b)/.test(readFileSync(new URL(name, folder), 'utf8')))
    .map((name) => name.replace(/\.ts$/, ''));
  expect(suites.map(({ file }) => file).sort()).toEqual(atomic.sort());
});

describe('the searches bite', () => {
  test('without tombstones a dead producer stops the ring', () => {
    const ring = { producers: 2, messages: 2, producersCrash: 1, noRepair: true };
    const report = explore(ringWorld(modules, ring));
    expect(report.stuck).toBeGreaterThan(0);
    expect(report.stuckTrace).toContain('stops for ever before');
  });

  test('a data race is a violation', () => {
    const region = new SharedArrayBuffer(256);
    const write = (): void => {
      new Int32Array(region)[40] = 1;
    };
    const read = (): void => {
      Atomics.load(new Int32Array(region), 40);
    };
    const world = (second: () => void) => ({
      regions: [region],
      threads: [
        { name: 'one', run: write },
        { name: 'two', run: second },
      ],
    });
    expect(() => explore(world(write))).toThrow('data race');
    expect(() => explore(world(read))).toThrow('data race');
  });

  test('notes that leave something out are refused', () => {
    const region = new SharedArrayBuffer(256);
    const world = {
      regions: [region],
      threads: [
        {
          name: 'forgetful',
          run(t: { mark(...notes: number[]): void }) {
            const words = new Int32Array(region);
            const seen = Atomics.load(words, 40);
            t.mark(); // what was seen decides the next op and is not noted
            Atomics.store(words, 41, seen);
          },
        },
        {
          name: 'writer',
          run() {
            const words = new Int32Array(region);
            Atomics.store(words, 40, 1);
            Atomics.load(words, 41);
          },
        },
      ],
    };
    expect(() => explore(world)).toThrow('the notes of a mark do not say everything');
  });
});
