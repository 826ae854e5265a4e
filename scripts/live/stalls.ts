/** T37: the scheduler thread stands still under load. */
import { evenRates, type LiveLab, ofPhase, withStage } from './lab.ts';
import { type Tails, tailsOf } from './measures.ts';
import { type LivePart, tailsHeader, tailsRow } from './part.ts';

const stallsMs = [200, 3000] as const;
const normalLoad = 0.5;
const pollMs = 50;
const readyWithinMs = 1000;

export async function stallsPart(lab: LiveLab): Promise<LivePart> {
  const results = [];
  for (const stallMs of stallsMs) results.push(await runStall(lab, stallMs));
  const [short, long] = results as [Stalled, Stalled];
  return {
    section: {
      heading: 'T37: the scheduler stands still',
      text:
        `At ${normalLoad} times capacity the scheduler thread is held for 200 ms, and for 3 s. Requests wait in the ` +
        'slot table and the request ring meanwhile; answers that run go on, for no token passes the ' +
        'scheduler. Readiness is polled every 50 ms on the admin port.',
      tables: [
        [
          [...tailsHeader, 'not ready, ms', 'ready again after, ms'],
          ...results.map((result) => [
            ...tailsRow(`${result.stallMs} ms`, result.tails),
            String(Math.round(result.notReadyMs)),
            String(Math.round(result.readyAgainMs)),
          ]),
        ],
      ],
      charts: [],
    },
    targets: [
      {
        against: 'T37, live',
        wanted: '200 ms: nothing is dropped, readiness stays on',
        found: `refused ${short.tails.refused}, lost ${short.tails.lost}, not ready ${Math.round(short.notReadyMs)} ms`,
        met: short.tails.refused + short.tails.lost === 0 && short.notReadyMs === 0,
        reason: '',
      },
      {
        against: 'T37, live',
        wanted: '3 s: readiness off meanwhile and back within 1 s, nothing is lost',
        found: `not ready ${Math.round(long.notReadyMs)} ms, back after ${Math.round(long.readyAgainMs)} ms, lost ${long.tails.lost}`,
        met: long.notReadyMs > 1500 && long.readyAgainMs < readyWithinMs && long.tails.lost === 0,
        reason: '',
      },
    ],
  };
}

interface Stalled {
  readonly stallMs: number;
  readonly tails: Tails;
  readonly notReadyMs: number;
  readonly readyAgainMs: number;
}

async function runStall(lab: LiveLab, stallMs: number): Promise<Stalled> {
  const normal = { seconds: lab.seconds.normal, rates: evenRates(normalLoad * lab.capacity) };
  return withStage(lab, {}, async (load, stage) => {
    const loaded = load.open([normal, normal]);
    const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    await wait(normal.seconds * 1000);
    let notReadyMs = 0;
    const poll = async (untilMs: number, isOver: () => boolean): Promise<void> => {
      while (performance.now() < untilMs && !isOver()) {
        const askedMs = performance.now();
        isReady = (await stage.readyStatus()) === 200;
        await wait(pollMs);
        if (!isReady) notReadyMs += performance.now() - askedMs;
      }
    };
    let isReady = true;
    const beginMs = performance.now();
    stage.stall();
    await poll(beginMs + stallMs, () => false);
    stage.unstall();
    const freeMs = performance.now();
    await poll(freeMs + 5000, () => isReady);
    const readyAgainMs = performance.now() - freeMs;
    const run = await loaded;
    return { stallMs, tails: tailsOf(ofPhase(run, 1)), notReadyMs, readyAgainMs };
  });
}
