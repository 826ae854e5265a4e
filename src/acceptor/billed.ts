/**
 * The tokens that a request which is over is billed for. Acceptor threads; never blocks.
 *
 * What replicas have counted is taken at their word. Where nobody has, as of a stream whose client left before
 * its engine said, and an answer has begun, it is estimated from bytes: else whoever leaves early reads prompts for
 * nothing. Bytes per token are learnt from the prompts of the same key, and lean to what costs (lib/reckoning.ts).
 * An answer that never began is on nobody's account. One that is made in the background, of which nobody says later
 * what it came to, is billed as long as it may be, or as those of the same key are.
 */
import { Reckoning } from '../lib/reckoning.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Request } from './request.ts';

type BillingState = Pick<AcceptorState, 'slots' | 'reckonings'>;
type BilledRequest = Pick<Request, 'slot' | 'status'> & { facts: Pick<Request['facts'], 'holder'> };

/** null: nobody knows. `estimated`: some of them are not counted. */
export interface Billed {
  input: number | null;
  output: number | null;
  cached: number | null;
  estimated: boolean;
}

/** One token of English text, and one event of a stream that carries a token. */
const bytesPerToken = 4;
const bytesPerEvent = 200;

/** Of the request at hand. */
const billed: Billed = { input: null, output: null, cached: null, estimated: false };

/** A record that the next call reuses. */
export function billedOf(state: BillingState, request: BilledRequest): Billed {
  const { slots } = state;
  const { words, at } = slots;
  const row = slots.row(request.slot);
  const isAsked = slots.attempts(request.slot) > 0;
  const read = (field: number): number | null => {
    const value = words[row + field] as number;
    return isAsked && value >= 0 ? value : null;
  };
  billed.input = read(at.promptTokens);
  billed.output = read(at.completionTokens);
  billed.cached = read(at.cachedTokens);
  billed.estimated = false;
  if (!isAsked) return billed;
  const flags = words[row + at.flags] as number;
  const textBytes = words[row + at.textBytes] as number;
  const reckoning = reckoningOf(state, request);
  const isText = (flags & RequestFlag.readsMore) === 0;
  const choices = words[row + at.choices] as number;
  const most = (words[row + at.maxTokens] as number) * choices;
  const isLater = (flags & RequestFlag.background) !== 0;
  const outputTokens = (billed.output ?? 0) / choices;
  if (billed.input !== null) reckoning.learn(isText ? textBytes : 0, billed.input, outputTokens);
  if (!hasBegun(state, request)) return billed;
  if (billed.input === null && textBytes > 0) {
    billed.input = reckoning.promptTokens(textBytes);
    billed.estimated = true;
  }
  if (billed.output === null && (flags & RequestFlag.generates) !== 0) {
    const perToken = (flags & RequestFlag.stream) !== 0 ? bytesPerEvent : bytesPerToken;
    const bytes = Math.max(words[row + at.producedBytes] as number, consumedBytes(state, row));
    billed.output = isLater
      ? most || reckoning.outputTokens
      : Math.min(Math.ceil(bytes / perToken), most || Number.POSITIVE_INFINITY);
    billed.estimated = true;
  }
  return billed;
}

/** A part of what its replica answered has reached the client, or was on its way to it. */
function hasBegun(state: BillingState, { slot, status }: BilledRequest): boolean {
  const { slots } = state;
  const { words, at } = slots;
  const row = slots.row(slot);
  const ofReplica = words[row + at.status] as number;
  if (status >= 400 || ofReplica >= 400) return false;
  const hasToken = slots.readTime(slot, at.firstTokenUs) > 0;
  return hasToken || words[row + at.producedBytes] !== 0 || consumedBytes(state, row) !== 0;
}

const consumedBytes = ({ slots: { words, at } }: BillingState, row: number): number =>
  Atomics.load(words, row + at.consumedBytes);

/** By key, and one for those who have none; a reload begins anew. */
function reckoningOf(state: BillingState, { facts }: BilledRequest): Reckoning {
  const key = facts.holder ?? state;
  const known = state.reckonings.get(key);
  if (known !== undefined) return known;
  const fresh = new Reckoning();
  state.reckonings.set(key, fresh);
  return fresh;
}
