/** Laws of the engine under random loads: nothing lost, nothing over capacity, always the same. */
import { expect, test } from 'vitest';
import { createPrng, type Prng } from '../../../../src/lib/prng.ts';
import { type EngineModel, stepMs } from '../../../../src/replica/engine/engine-model.ts';
import { blockIds, EngineRig } from './engine-rig.ts';

const SEED = Number(process.env.SEED ?? 90_210);
const BLOCK_TOKENS = 16;

/** Prompts of a few families, each the beginning of one long text. */
function randomBlocks(random: Prng, promptTokens: number): number[] {
  const full = Math.floor(promptTokens / BLOCK_TOKENS);
  return blockIds(random.below(full + 1), random.below(6) * 10_000);
}

interface Outcome {
  readonly rig: EngineRig;
  readonly submitted: number[];
  readonly cancelled: Set<number>;
}

/** Random arrivals and departures between the steps of one engine, until it is empty. */
function randomRun(seed: number, change: Partial<EngineModel>): Outcome {
  const random = createPrng(seed);
  const rig = new EngineRig(change, BLOCK_TOKENS);
  const { kvPages, maxNumSeqs, pageTokens } = rig.model;
  const submitted: number[] = [];
  const cancelled = new Set<number>();
  let hitsSeen = 0;
  for (let round = 0; round < 400; round++) {
    for (let i = random.below(4); i > 0; i--) {
      const id = submitted.length;
      const promptTokens = 1 + random.below((kvPages * pageTokens) / 2);
      const outputTokens = 1 + random.below(random.below(4) === 0 ? 80 : 8);
      const fits = rig.engine.fits(promptTokens, outputTokens);
      if (!fits) continue;
      rig.submit(id, promptTokens, outputTokens, randomBlocks(random, promptTokens));
      submitted.push(id);
    }
    if (random.below(5) === 0 && submitted.length > 0) {
      const id = Math.max(0, submitted.length - 1 - random.below(12));
      if (rig.count('finished', id) === 0) cancelled.add(id);
      rig.cancel(id);
    }
    for (let i = random.below(6); i > 0 && rig.engine.nextUs !== Infinity; i--) rig.advance();
    expect(rig.engine.running, `SEED=${seed}`).toBeLessThanOrEqual(maxNumSeqs);
    expect(rig.engine.kvUsage, `SEED=${seed}`).toBeLessThanOrEqual(1);
    expect(rig.engine.hitTokensTotal, `SEED=${seed}`).toBeGreaterThanOrEqual(hitsSeen);
    hitsSeen = rig.engine.hitTokensTotal;
  }
  rig.drain();
  return { rig, submitted, cancelled };
}

const TIGHT = { kvPages: 40, maxNumSeqs: 6, stepTokensMax: 128 };

test('every request finishes once or was cancelled, and the engine is empty then', () => {
  let preemptions = 0;
  let hitTokens = 0;
  for (let seed = SEED; seed < SEED + 30; seed++) {
    const { rig, submitted, cancelled } = randomRun(seed, TIGHT);
    for (const id of submitted) {
      const finished = rig.count('finished', id);
      expect(finished, `request ${id}, SEED=${seed}`).toBe(cancelled.has(id) ? 0 : 1);
      expect(rig.count('first', id), `SEED=${seed}`).toBeLessThanOrEqual(1);
      if (finished > 0) expect(rig.at('first', id)).toBeLessThanOrEqual(rig.at('finished', id));
    }
    const { running, waiting, kvUsage } = rig.engine;
    expect([running, waiting, kvUsage], `SEED=${seed}`).toEqual([0, 0, 0]);
    expect(rig.engine.hitTokensTotal).toBeLessThan(rig.engine.promptTokensTotal);
    preemptions += rig.engine.preemptions;
    hitTokens += rig.engine.hitTokensTotal;
  }
  // The load is one that meets what the laws are about.
  expect(preemptions).toBeGreaterThan(100);
  expect(hitTokens).toBeGreaterThan(1000);
});

test('the same load gives the same log to the microsecond', () => {
  const [one, two] = [randomRun(SEED, TIGHT), randomRun(SEED, TIGHT)];
  expect(one.rig.log.length, `SEED=${SEED}`).toBeGreaterThan(100);
  expect(two.rig.log, `SEED=${SEED}`).toEqual(one.rig.log);
  expect(two.rig.engine.busyUs).toBe(one.rig.engine.busyUs);
});

test('what is kept as differences equals a recount of all decodes', () => {
  const random = createPrng(SEED);
  const rig = new EngineRig({ maxNumSeqs: 64 });
  const sizes = Array.from({ length: 300 }, () => ({
    prompt: 1 + random.below(300),
    output: 2 + random.below(200),
  }));
  let next = 0;
  while (next < sizes.length || rig.engine.nextUs !== Infinity) {
    if (next < sizes.length && random.below(3) === 0) {
      const { prompt, output } = sizes[next]!;
      rig.submit(next++, prompt, output);
    }
    if (rig.engine.nextUs === Infinity) continue;
    let decodes = 0;
    let residentTokens = 0;
    let pages = 0;
    for (let id = 0; id < next; id++) {
      const produced = rig.engine.producedTokens(id);
      if (produced === 0) continue;
      decodes++;
      // The last token made has no KV yet; the running step is where it gets it.
      const kvTokens = sizes[id]!.prompt + produced - 1;
      residentTokens += kvTokens;
      pages += Math.ceil((kvTokens + 1) / rig.model.pageTokens);
    }
    const onlyDecodes = decodes === rig.engine.running;
    if (onlyDecodes) {
      expect(rig.engine.kvUsage, `SEED=${SEED}`).toBe(pages / rig.model.kvPages);
      const load = { decodes, residentTokens, prefillTokens: 0, chunks: 0, attendedTokens: 0 };
      const stepUs = Math.round(stepMs(rig.model, load) * 1000);
      expect(rig.engine.nextUs - rig.nowUs, `SEED=${SEED}`).toBe(stepUs);
    }
    rig.advance();
  }
  expect(rig.log.filter(({ what }) => what === 'finished').length).toBe(sizes.length);
});

test('whoever hears of a token may cancel any request at once', () => {
  const random = createPrng(SEED);
  // Short answers, many at a time: often several end in the step that is heard of.
  const rig = new EngineRig({ kvPages: 400, maxNumSeqs: 60 }, BLOCK_TOKENS);
  const cancelled = new Set<number>();
  const push = rig.log.push.bind(rig.log);
  rig.log.push = (entry) => {
    const length = push(entry);
    const id = Math.max(0, entry.id - 8 + random.below(16));
    if (random.below(3) === 0 && rig.count('finished', id) === 0) {
      rig.cancel(id);
      if (id < 400) cancelled.add(id);
    }
    return length;
  };
  for (let id = 0; id < 400; id++) {
    const prompt = 1 + random.below(100);
    rig.submit(id, prompt, 1 + random.below(4), randomBlocks(random, prompt));
  }
  rig.drain();
  expect(cancelled.size).toBeGreaterThan(50);
  for (let id = 0; id < 400; id++) {
    const ends = rig.count('finished', id) + (cancelled.has(id) ? 1 : 0);
    expect(ends, `request ${id}, SEED=${SEED}`).toBe(1);
  }
  expect([rig.engine.running, rig.engine.waiting, rig.engine.kvUsage]).toEqual([0, 0, 0]);
});
