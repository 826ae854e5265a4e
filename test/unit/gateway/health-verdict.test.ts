import { expect, test } from 'vitest';
import { HealthVerdict, type ProbeResult } from '../../../src/gateway/health-verdict.ts';

const defaults = { interval: 5000, unhealthy_after: 2, healthy_after: 1 };
const letters: Readonly<Record<string, ProbeResult>> = {
  ...{ o: 'ok', x: 'failed', '?': 'void', '!': 'dead' },
};

/** Probe results as letters; the answer has the verdict after each: + in, - out. */
function run(results: string, options = defaults): string {
  const verdict = new HealthVerdict(options);
  return [...results]
    .map((letter) => {
      const before = verdict.healthy;
      const changed = verdict.add(letters[letter]!);
      expect(changed).toBe(before !== verdict.healthy);
      return verdict.healthy ? '+' : '-';
    })
    .join('');
}

test('A-12: two failures in a row take a replica out, one success brings it back', () => {
  expect(run('oxxo')).toBe('++-+');
  expect(run('oxoxoxxxxo')).toBe('++++++---+');
});

test('a replica that never answered is out', () => {
  expect(run('xxx')).toBe('---');
  expect(new HealthVerdict(defaults).healthy).toBe(false);
});

test('proof that it is dead needs no second time', () => {
  expect(run('o!o')).toBe('+-+');
  const patient = { interval: 5000, unhealthy_after: 5, healthy_after: 2 };
  expect(run('oox!xoo', patient)).toBe('-++---+');
});

test('a void probe neither adds to a row nor breaks it', () => {
  expect(run('?')).toBe('-');
  expect(run('ox?x')).toBe('+++-');
  expect(run('o????')).toBe('+++++');
  expect(run('o?xx??o')).toBe('+++---+');
});

test('the rows are as long as the config says', () => {
  const patient = { interval: 5000, unhealthy_after: 3, healthy_after: 2 };
  expect(run('ooxxoxxxoxoo', patient)).toBe('-++++++----+');
  const strict = { interval: 5000, unhealthy_after: 1, healthy_after: 1 };
  expect(run('oxoxo', strict)).toBe('+-+-+');
});

test('C-05: no blind quarantine: however long it was out, one success is proof', () => {
  expect(run('oxxxxxxxxxxxxo')).toBe('++-----------+');
});

test('a replica in doubt or out is asked five times as often', () => {
  const verdict = new HealthVerdict(defaults);
  expect(verdict.delayMs).toBe(1000);
  verdict.add('ok');
  expect(verdict.delayMs).toBe(5000);
  verdict.add('failed');
  expect(verdict.delayMs).toBe(1000);
  verdict.add('void');
  expect(verdict.delayMs).toBe(1000);
  verdict.add('ok');
  expect(verdict.delayMs).toBe(5000);
});

test('short intervals are not shortened below 100 ms, nor ever lengthened', () => {
  expect(new HealthVerdict({ ...defaults, interval: 300 }).delayMs).toBe(100);
  expect(new HealthVerdict({ ...defaults, interval: 50 }).delayMs).toBe(50);
});

test('from death to exclusion takes one interval, a doubtful one and two time-outs at most', () => {
  const { interval } = defaults;
  const timeout = 1000;
  const verdict = new HealthVerdict(defaults);
  verdict.add('ok');
  // It dies right behind a good probe: the worst moment.
  let elapsed = 0;
  while (verdict.healthy) {
    elapsed += verdict.delayMs + timeout;
    verdict.add('failed');
  }
  expect(elapsed).toBe(interval + interval / 5 + 2 * timeout);
  expect(elapsed).toBeLessThanOrEqual(11_000);
});
