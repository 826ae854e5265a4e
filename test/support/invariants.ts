/**
 * What holds of every gateway that a test leaves running, whatever was done to it: the invariants of
 * RELIABILITY.md 8.1 that need no knowledge of the test. `withGateway` asks for them.
 *
 *   I1, I2   every call had one honest end, and what came is an exact prefix (calls of traffic.ts);
 *            no slot was settled twice, no attempt had to be found by the audit
 *   I3       slots, rings, queues, arena and counts of requests in flight are empty within 2 s
 *   I4       descriptors that are no sockets are as many as before, and no connection is forgotten
 *   I7       (of I3) no replica works for nobody: nothing is in flight
 *   I8       neither prompts nor tokens nor secrets of the tests are in the output
 *   I9       /readyz agrees on both listeners, and with what /v1/cluster shows
 *
 * I5 (billing) and I6 (how soon an abort arrives) need the ledgers of a test; scenarios check them.
 */
import { expect } from 'vitest';
import { tokensText } from '../../src/replica/tokens.ts';
import { type DescriptorsOf, descriptorsOf } from './descriptors-of.ts';
import type { GatewayProcess } from './gateway.ts';
import { expectQuiet } from './quiet.ts';
import { total } from './scenario.ts';
import { type Call, takeCallsTo } from './traffic.ts';
import { eventually } from './until.ts';

export const invariantsOfEvery = ['I1', 'I2', 'I3', 'I4', 'I7', 'I8', 'I9'] as const;

const descriptorsSlack = 2;
const settleMs = 5000;
/** Counters of bugs: settled twice, found by the audit, thrown in a handler. */
const bugCounters = ['settle_conflicts', 'in_flight_leaks'] as const;
/** A nonce of a prompt, a token of a replica, a key in a header. */
const secrets = [/nonce=\w/, / \w+:\d+:[0-9a-f]{8}/, /Bearer \w/];

export async function expectInvariants(
  gateway: GatewayProcess,
  before: DescriptorsOf,
): Promise<void> {
  const calls = takeCallsTo(gateway.port);
  await eventually(
    'every call has its end',
    () => calls.every(({ endedAt }) => endedAt > 0),
    settleMs,
  );
  for (const call of calls) {
    expectHonest(call);
    // The process lives: nobody is left without an answer.
    expect(call.end, call.nonce).not.toBe('broken');
  }
  await expectQuiet(gateway);
  const families = await gateway.metrics();
  for (const name of bugCounters) expect(total(families, `sluice_${name}_total`), name).toBe(0);
  await eventually(
    `descriptors back to ${before.others}, no connection forgotten`,
    () => {
      const { others, forgotten } = descriptorsOf(gateway.servingPid);
      return others <= before.others + descriptorsSlack && forgotten === 0;
    },
    settleMs,
  );
  await eventually('both listeners and the cluster page agree on readiness', () => agree(gateway));
  for (const secret of secrets) expect(gateway.output()).not.toMatch(secret);
}

/** I1 and I2: the call has one end, which does not lie, and what came is an exact prefix. */
export function expectHonest(c: Call): void {
  const { end, ledger, body } = c;
  if (end === 'done') expectWhole(c);
  if (c.isStream && c.status === 200) {
    expect(ledger, body.toString()).toMatchObject({
      ...{ exact: true, duplicates: 0, gaps: 0, foreign: 0 },
    });
    // A good end without `[DONE]` has a finish reason (expectWhole). Behind `[DONE]` a process that is
    // killed may still owe the end of the framing: the client has all it asked for.
    if (end === 'broken' && ledger.sawDone) expectWhole(c);
    else if (end !== 'left' && end !== 'done') expect(ledger.sawDone, body.toString()).toBe(false);
  }
  // A cut connection tells; a stream that ends by its framing must carry its end or an error.
  if (end === 'silent') expect(c.isComplete, body.toString()).toBe(false);
}

/** A good end has all that was asked for, and nothing else. */
function expectWhole(c: Call): void {
  const { ledger, body, tokensDue } = c;
  if (c.isStream) {
    expect(ledger.finishReason, body.toString()).toBeDefined();
    if (tokensDue >= 0) expect(ledger.tokens, body.toString()).toBe(tokensDue);
    return;
  }
  const { usage } = JSON.parse(body.toString()) as { usage: { completion_tokens: number } };
  if (tokensDue >= 0) expect(usage.completion_tokens, body.toString()).toBe(tokensDue);
  expect(c.text).toBe(tokensText(c.series, 0, usage.completion_tokens));
}

async function agree(gateway: GatewayProcess): Promise<boolean> {
  const [admin, { status }, { replicas }] = await Promise.all([
    gateway.ready(),
    fetch(`${gateway.url}/readyz`),
    gateway.cluster(),
  ]);
  const isAnyRoutable = replicas.some(
    ({ state, healthy, weight }) => state === 'active' && healthy && weight > 0,
  );
  return admin.ready === isAnyRoutable && (status === 200) === isAnyRoutable;
}
