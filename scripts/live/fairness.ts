/** One tenant that sends most of too much, beside nine that send little; and all ten sending too much. */
import { quantile } from '../../src/lib/quantile.ts';
import { numberText } from '../../src/simulation/summary.ts';
import { boundedQueue, evenRates, type LiveLab, ofPhase, rates, withStage } from './lab.ts';
import { isLight, liveFairness, type Tails, tailsOf, wholeMs } from './measures.ts';
import { type LivePart, ms, tailsHeader, tailsRow } from './part.ts';

const heavyShare = 0.7;
const overload = 1.3;
/** Above it each of the nine wants more than a tenth of the capacity. */
const allBacklogged = 4;
/** T42: the flooding tenant sends so many times its fair share, on top of a normal load of all. */
const flood = 10;
const normalShare = 0.6;

export async function fairnessPart(lab: LiveLab): Promise<LivePart> {
  const { capacity, seconds } = lab;
  const light = overload * (1 - heavyShare) * capacity;
  const measured = await withStage(lab, {}, async (load) => {
    const alone = await load.open([{ seconds: seconds.fairness, rates: rates(0, light) }]);
    const beside = {
      seconds: seconds.fairness,
      rates: rates(overload * heavyShare * capacity, light),
    };
    return { alone, both: await load.open([beside]) };
  });
  const contended = await withStage(lab, {}, (load) =>
    load.open([{ seconds: seconds.fairness, rates: evenRates(allBacklogged * capacity) }]),
  );
  const solo = tailsOf(measured.alone.records);
  const beside = tailsOf(measured.both.records.filter(isLight));
  const heavyTails = tailsOf(measured.both.records.filter((record) => !isLight(record)));
  const fair = liveFairness(measured.both);
  const even = liveFairness(contended);
  const service = quantile(
    measured.alone.records.filter(({ isServed }) => isServed).map(wholeMs),
    0.5,
  );
  const ratio = beside.queueP99 / Math.max(solo.queueP99, service);
  return {
    section: {
      heading: 'Fairness: one tenant floods, nine are light',
      text: fairnessText(service),
      tables: [
        [
          tailsHeader,
          tailsRow('light tenants alone', solo),
          tailsRow('light tenants beside the heavy one', beside),
          tailsRow('heavy tenant', heavyTails),
          tailsRow(`all ten send ${allBacklogged} times their share`, tailsOf(contended.records)),
        ],
        [
          ['', 'Jain, 10 s', 'windows', 'Jain of fair shares', 'service gap, ktokens', 'VTC bound'],
          ...[
            ['1.3 times, one heavy', fair] as const,
            [`${allBacklogged} times, all alike`, even] as const,
          ].map(([name, of]) => [
            name,
            of.short.windows === 0
              ? 'nobody but the heavy one waits'
              : numberText(of.short.jain, 3),
            String(of.short.windows),
            numberText(of.shares, 3),
            numberText(of.serviceGap / 1000, 1),
            numberText(of.serviceBound / 1000, 1),
          ]),
        ],
      ],
      charts: [],
    },
    targets: [
      {
        against: 'fairness, live',
        wanted: 'queue wait of light tenants, p99, < 2 times their solo value',
        found: `${ms(beside.queueP99)}, solo ${ms(solo.queueP99)}`,
        met: beside.queueP99 < 2 * solo.queueP99,
        reason:
          'Alone they find a free place; beside a heavy tenant every place is taken. See below.',
      },
      {
        against: 'fairness, live',
        wanted: 'the same, < 2 times the longer of solo and one median answer',
        found: `${ms(beside.queueP99)}, solo ${ms(solo.queueP99)}, answer ${ms(service)}: ${numberText(ratio, 2)} times`,
        met: ratio < 2,
        reason: '',
      },
      {
        against: 'fairness, live',
        wanted: 'whole answers of light tenants, p99, < 2 times their solo value',
        found: `${ms(beside.wholeP99)}, solo ${ms(solo.wholeP99)}`,
        met: beside.wholeP99 < 2 * solo.wholeP99,
        reason: '',
      },
      {
        against: 'fairness, live',
        wanted: 'Jain index >= 0.95',
        found:
          `${numberText(fair.shares, 3)} of fair shares at ${overload} times capacity; ` +
          `${numberText(even.short.jain, 3)} of service in ${even.short.windows} windows of 10 s with all backlogged`,
        met: fair.shares >= 0.95 && even.short.jain >= 0.95,
        reason: '',
      },
      {
        against: 'VTC, live',
        wanted: 'difference of service of any two that wait within the bound',
        found: `${numberText(even.serviceGap / 1000, 1)} of ${numberText(even.serviceBound / 1000, 1)} ktokens`,
        met: even.serviceGap <= even.serviceBound,
        reason: '',
      },
    ],
  };
}

export async function floodPart(lab: LiveLab): Promise<LivePart> {
  const { capacity, seconds } = lab;
  const each = (normalShare * capacity) / 10;
  const queue = { max: boundedQueue(capacity) };
  const run = await withStage(lab, queue, (load) =>
    load.open([
      { seconds: seconds.fairness, rates: rates(each, 9 * each) },
      { seconds: seconds.fairness, rates: rates((flood * capacity) / 10, 9 * each) },
    ]),
  );
  const [before, during] = [0, 1].map((phase) => tailsOf(ofPhase(run, phase).filter(isLight)));
  const flooder = tailsOf(ofPhase(run, 1).filter((record) => !isLight(record)));
  const tails = [before, during] as [Tails, Tails];
  const rise = 100 * (tails[1].wholeP99 / tails[0].wholeP99 - 1);
  return {
    section: {
      heading: 'T42: one tenant floods at 10 times its share',
      text:
        `All send ${normalShare} times capacity; then one of them sends ${flood} times its tenth of it. ` +
        `\`queue.max\` is ${queue.max}, so the flood fills the queue: who floods is refused, nobody else.`,
      tables: [
        [
          tailsHeader,
          tailsRow('the nine before', tails[0]),
          tailsRow('the nine during', tails[1]),
          tailsRow('the one that floods', flooder),
        ],
      ],
      charts: [],
    },
    targets: [
      {
        against: 'T42, live',
        wanted: 'whole answers of the others, p99, rise by less than 20 %',
        found: `${rise >= 0 ? '+' : ''}${numberText(rise, 1)} % (${ms(tails[0].wholeP99)} to ${ms(tails[1].wholeP99)})`,
        met: rise < 20,
        reason:
          'A request that runs is not interrupted: who comes first in line waits for a place.',
      },
      {
        against: 'T42, live',
        wanted: 'the others keep their share: none of theirs is refused or lost',
        found: `${tails[1].refused + tails[1].lost} of ${tails[1].sent}`,
        met: tails[1].refused + tails[1].lost === 0,
        reason: '',
      },
    ],
  };
}

function fairnessText(service: number): string {
  return (
    `One tenant offers 70 % of ${overload} times capacity, nine share the rest; each has a key of its own. ` +
    'The queue is in the gateway (`max_in_flight` is the number of places of a replica) and has its ' +
    'default bound. Alone, the light tenants hardly ever find all places taken and wait for nothing, so ' +
    'twice that is nothing as well: no queue can promise it while somebody else keeps every place ' +
    'busy, as what runs is not interrupted. Their wait is therefore compared with the longer of their ' +
    `solo wait and one median answer (${ms(service)}), and their whole answers with those they had alone. Only the ` +
    'heavy tenant is backlogged here: Jain’s index is that of service over max-min fair share, and the ' +
    'service of tenants that all wait is measured by a second run in which all ten send too much.'
  );
}
