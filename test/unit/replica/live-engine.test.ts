/** The modelled engine on a paused clock: when the steps of an answer are there. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { nowMs } from '../../../src/lib/clock.ts';
import { Engine } from '../../../src/replica/engine/engine.ts';
import { engineModel } from '../../../src/replica/engine/engine-model.ts';
import { type Generation, readGeneration } from '../../../src/replica/generation.ts';
import { type EngineRun, LiveEngine } from '../../../src/replica/live-engine.ts';
import { type Profile, parseProfile } from '../../../src/replica/profile.ts';
import { ReplicaStats } from '../../../src/replica/stats.ts';
import { TimerQueue } from '../../../src/replica/timer-queue.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }));
afterEach(() => void vi.useRealTimers());

class Rig {
  readonly stats = new ReplicaStats(16);
  readonly engine: LiveEngine;
  readonly #profile: Profile;

  constructor(name: string, maxNumSeqs = 8) {
    const profile = parseProfile(name);
    if (typeof profile === 'string' || profile.engine === undefined) throw new Error(name);
    this.#profile = profile;
    this.engine = new LiveEngine(profile.engine, maxNumSeqs, this.stats, new TimerQueue());
  }

  generation(body: object): Generation {
    const read = readGeneration('completions', { ignore_eos: true, ...body }, this.#profile);
    if (typeof read === 'string') throw new Error(read);
    return read;
  }

  /** Starts an answer; `steps` gets the time, from its start, of each of its steps. */
  enter(body: object): { run: EngineRun; steps: number[]; generation: Generation } {
    const generation = this.generation(body);
    const steps: number[] = [];
    const start = nowMs();
    const run = this.engine.enter(
      {
        onSteps: (now) => {
          const ready = Math.min(run.stepsReady, generation.steps);
          while (steps.length < ready) steps.push(now - start);
        },
      },
      generation,
    );
    return { run, steps, generation };
  }
}

/** When the tokens of a request that is alone are out, in ms, from the engine itself. */
function modelled(promptTokens: number, outputTokens: number): number[] {
  const model = engineModel('8b-h100');
  const atMs: number[] = [];
  const engine = new Engine(model, 16, {
    firstToken: (_id, us) => void atMs.push(us / 1000),
    finished: () => {},
    step: (us) => void atMs.push((atMs.at(-1) ?? 0) + us / 1000),
  });
  engine.submit(0, promptTokens, outputTokens, new Int32Array(0), 0);
  while (engine.nextUs !== Number.POSITIVE_INFINITY) engine.advance();
  return atMs;
}

const prompt = 'x'.repeat(3000); // 1,000 tokens

test.each([1, 0.25])('at speed %d every step is out when the model has it', (speed) => {
  const rig = new Rig(`engine:8b-h100,speed=${speed}`);
  const { steps } = rig.enter({ prompt, max_tokens: 12 });
  vi.advanceTimersByTime(1000);
  const wanted = modelled(1000, 12);
  expect(steps.length).toBe(12);
  steps.forEach((ms, i) => {
    // Two timers, each up to a tick late: the overhead's, which the engine starts from, and its own.
    expect(ms).toBeGreaterThanOrEqual((wanted[i] ?? 0) / speed - 0.01);
    expect(ms).toBeLessThan((wanted[i] ?? 0) / speed + 4);
  });
});

test('at a high speed the steps of one tick come together and none is lost', () => {
  const rig = new Rig('engine:8b-h100,speed=100');
  const { steps } = rig.enter({ prompt, max_tokens: 60 });
  vi.advanceTimersByTime(100);
  expect(steps.length).toBe(60);
  expect(new Set(steps).size).toBeLessThan(20);
});

test('a slow engine is slow from its next step on', () => {
  const rig = new Rig('engine:8b-h100');
  rig.engine.slowness = 10;
  const { steps } = rig.enter({ prompt: 'x', max_tokens: 4 });
  vi.advanceTimersByTime(1000);
  const gaps = steps.slice(1).map((ms, i) => ms - (steps[i] ?? 0));
  for (const gap of gaps) expect(gap).toBeGreaterThan(60);
});

test('every choice is a sequence, and a step needs the token of each', () => {
  const rig = new Rig('engine:8b-h100');
  const { steps, generation } = rig.enter({ prompt: [prompt, 'y'], n: 2, max_tokens: 5 });
  vi.advanceTimersByTime(50);
  expect(rig.stats.running).toBe(4);
  vi.advanceTimersByTime(1000);
  expect(steps.length).toBe(5);
  expect(rig.stats.running).toBe(0);
  // The second choice of a prompt finds it cached; that is no saving on the prompt.
  expect(generation.cached).toEqual({ tokens: 0 });
  expect(rig.engine.cacheFigures().hitTokens).toBe(992);
});

test('whoever leaves, before or after the engine has it, gives up everything', () => {
  const rig = new Rig('engine:8b-h100', 1);
  const [early, running, waiting] = [0, 1, 2].map(() => rig.enter({ prompt, max_tokens: 500 }));
  early?.run.leave();
  vi.advanceTimersByTime(60);
  expect([rig.stats.running, rig.stats.waiting]).toEqual([1, 1]);
  waiting?.run.leave();
  expect([rig.stats.running, rig.stats.waiting]).toEqual([1, 0]);
  running?.run.leave();
  vi.advanceTimersByTime(20);
  expect([rig.stats.running, rig.stats.waiting]).toEqual([0, 0]);
  expect(rig.engine.cacheFigures().usage).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
});

test('what can never run is refused', () => {
  const rig = new Rig('engine:8b-h100');
  expect(rig.engine.refusal(rig.generation({ prompt, max_tokens: 447_001 }))).toBeUndefined();
  const tooLong = rig.generation({ prompt, max_tokens: 447_002 });
  expect(rig.engine.refusal(tooLong)).toContain('448000');
});
