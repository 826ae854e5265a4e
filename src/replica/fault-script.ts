/**
 * A response with faults: the whole of it is written out in advance as segments, then bent. Pure.
 *
 * Tokens are a function of the prompt, so every byte is known before the first is sent, and a fault
 * is a change to a list: first to payloads, then (once framed) to bytes, then to how it ends. With an
 * engine that is at the first token: only then is it known what the prefix cache saved.
 */
import { type Answer, answerHead } from './answer.ts';
import type { FaultPlan, StallAt } from './faults.ts';
import { chunk, type Framing, framingLines, LAST_CHUNK } from './http-writer.ts';
import type { Ending, Source } from './source.ts';
import { SSE_VARIANTS } from './sse-variants.ts';

interface Segment {
  text: string;
  gapMs: number;
  /** Tokens of this response once it is out. */
  tokens: number;
  /** Tokens of the whole answer once it is out; what positions of faults are compared with. */
  position: number;
  /** Steps of the answer that it waits for, when an engine makes them. */
  steps: number;
  ending: Ending;
}

/** Time for the peer to read what was sent before a reset throws away what it has not read. */
const BEFORE_CUT_MS = 20;
/** Between the two parts of a split, so that they arrive as two reads. */
const SPLIT_MS = 5;
/** Bytes that drip one by one; the rest follows at once. */
const DRIP_BYTES_MAX = 64 * 1024;
/** `{"choices":[],"padding":""}` */
const BIG_EVENT_FRAME_BYTES = 27;
const GARBAGE = '\x00\xff\x16\x03\x01 garbage \r\n\r\nzz\r\n';
export class FaultScript implements Source {
  text = '';
  gapMs = 0;
  tokens = 0;
  ending: Ending = 'none';
  readonly reusable: boolean;
  readonly slow: number;
  stepsNeeded: number;
  readonly #write: () => readonly Segment[];
  #segments: readonly Segment[] | undefined;
  #at = -1;

  constructor(answer: Answer, plan: FaultPlan, keepAlive: boolean, chunkedAllowed: boolean) {
    const framing = framingOf(answer, plan, chunkedAllowed);
    this.reusable = keepAlive && framing !== 'close' && plan.length === undefined;
    this.slow = plan.slow ?? 1;
    this.stepsNeeded = answer.stream ? 1 : answer.steps;
    this.#write = () => script(answer, plan, framing, this.reusable);
  }

  next(): boolean {
    this.#segments ??= this.#write();
    const segment = this.#segments[++this.#at];
    if (segment === undefined) return false;
    this.stepsNeeded = Math.max(this.stepsNeeded, this.#segments[this.#at + 1]?.steps ?? 0);
    this.text = segment.text;
    this.gapMs = segment.gapMs;
    this.tokens = segment.tokens;
    this.ending = segment.ending;
    return true;
  }
}

function framingOf(answer: Answer, plan: FaultPlan, chunkedAllowed: boolean): Framing {
  if (plan.framing !== undefined) return plan.framing;
  if (!answer.stream) return 'length';
  return chunkedAllowed ? 'chunked' : 'close';
}

function script(answer: Answer, plan: FaultPlan, framing: Framing, reusable: boolean): Segment[] {
  let payloads = answer.stream ? streamPayloads(answer) : wholePayloads(answer);
  payloads = bendEvents(payloads, plan, answer);
  payloads = stopAt(payloads, plan, answer.start);
  if (plan.split !== undefined) payloads = splitAt(payloads, plan.split);
  if (plan.dripMs !== undefined) payloads = drip(payloads, plan.dripMs);
  const bytes = payloads.reduce((sum, { text }) => sum + text.length, 0);
  const announced = framing === 'length' ? fullLength(answer, plan, bytes) : bytes;
  const head: Segment = {
    text: answerHead(answer) + headFraming(plan, framing, announced, reusable),
    gapMs: answer.headMs,
    tokens: 0,
    position: answer.start,
    steps: 0,
    ending: 'none',
  };
  return bendBytes([head, ...framed(payloads, plan, framing, answer.start)], plan);
}

function streamPayloads(answer: Answer): Segment[] {
  const segments: Segment[] = [];
  for (let step = 0; step < answer.steps; step++) {
    const stepGapMs = step === 0 ? answer.firstStepMs : answer.stepMs;
    const events = answer.payload(step).match(/[\s\S]*?\n\n/g) ?? [];
    // The events before the first token are not progress; those after the last belong to its step.
    const tokenEvent = events.findIndex((event) => event.includes(answer.tokenAt(step)));
    events.forEach((text, i) => {
      const reached = i >= tokenEvent ? step : step - 1;
      segments.push({
        text,
        gapMs: i === 0 ? stepGapMs : 0,
        tokens: answer.tokensAfter(reached),
        position: answer.start + reached + 1,
        steps: step + 1,
        ending: 'none',
      });
    });
  }
  return segments;
}

/** The body cut behind every token, so that positions mean the same as in a stream. */
function wholePayloads(answer: Answer): Segment[] {
  const body = answer.body();
  const segments: Segment[] = [];
  let at = 0;
  for (let step = 0; step < answer.steps; step++) {
    const token = answer.tokenAt(step);
    const found = token === '' ? -1 : body.indexOf(token, at);
    if (found < 0) break;
    const end = found + token.length;
    segments.push(payload(body.slice(at, end), answer.tokensAfter(step), answer.start + step + 1));
    at = end;
  }
  const tokens = answer.tokensAfter(answer.steps);
  segments.push(payload(body.slice(at), tokens, answer.start + answer.steps));
  return segments;
}

function payload(text: string, tokens: number, position: number): Segment {
  return { text, gapMs: 0, tokens, position, steps: 0, ending: 'none' };
}

function bendEvents(
  segments: Segment[],
  plan: FaultPlan,
  { stream, errorEvent }: Answer,
): Segment[] {
  let bent = segments;
  if (stream && plan.sse !== undefined) bent = sseVariant(bent, plan.sse, plan.sseAt ?? 2);
  if (stream && plan.bigEvent !== undefined) {
    const padding = 'x'.repeat(Math.max(0, plan.bigEvent - BIG_EVENT_FRAME_BYTES));
    bent = insertAfterTokens(bent, 1, `data: {"choices":[],"padding":"${padding}"}\n\n`);
  }
  if (stream && plan.errorEvent !== undefined) {
    bent = insertAfterTokens(bent, plan.errorEvent, errorEvent);
    const at = bent.findIndex(({ text }) => text === errorEvent);
    bent = bent.slice(0, at + 1);
  }
  return bent;
}

function sseVariant(segments: Segment[], name: string, at: number): Segment[] {
  const variant = SSE_VARIANTS[name];
  if (variant === undefined) return segments;
  const events = variant.apply(
    segments.map(({ text }) => text),
    at,
  );
  // An inserted or dropped event shifts the schedule by one at most, which no test can see.
  return events.map((text, i) => ({
    ...(segments[Math.min(i, segments.length - 1)] ?? payload('', 0, 0)),
    text,
  }));
}

/** Inserts an event after `count` tokens of this response; 0 is before any other event. */
function insertAfterTokens(segments: Segment[], count: number, text: string): Segment[] {
  if (count === 0) {
    const first = segments[0];
    const event = { ...payload(text, 0, 0), gapMs: first?.gapMs ?? 0 };
    return first === undefined ? [event] : [event, { ...first, gapMs: 0 }, ...segments.slice(1)];
  }
  const at = segments.findIndex(({ tokens }) => tokens >= count);
  const before = segments[at < 0 ? segments.length - 1 : at];
  const event = payload(text, before?.tokens ?? 0, before?.position ?? 0);
  return segments.toSpliced(at < 0 ? segments.length : at + 1, 0, event);
}

/** Ends the payload where a stall, cut, hold or kill asks for it. */
function stopAt(segments: Segment[], plan: FaultPlan, start: number): Segment[] {
  let stopped = segments;
  if (plan.holdAfter !== undefined) stopped = withEnding(stopped, plan.holdAfter, start, 'hold', 0);
  if (plan.killAfter !== undefined) {
    stopped = cutAfter(stopped, plan.killAfter, plan, start, 'kill');
  }
  if (plan.stall !== undefined) stopped = cutAfter(stopped, plan.stall, plan, start, 'stall');
  if (plan.cut !== undefined) stopped = cutAfter(stopped, plan.cut.at, plan, start, plan.cut.kind);
  return stopped;
}

function withEnding(
  segments: Segment[],
  position: number,
  start: number,
  ending: Ending,
  gapMs: number,
): Segment[] {
  const index = segments.findIndex((segment) => segment.position >= position);
  if (position <= start || index < 0) return segments;
  const stop = { ...(segments[index] ?? payload('', 0, 0)), text: '', gapMs, ending };
  return segments.toSpliced(index + 1, 0, stop);
}

function cutAfter(
  segments: Segment[],
  at: StallAt,
  plan: FaultPlan,
  start: number,
  ending: Ending,
): Segment[] {
  if (at === 'headers') return [{ ...payload('', 0, start), ending }];
  const gapMs = ending === 'stall' ? 0 : BEFORE_CUT_MS;
  const atStart = at === 'body' || (at === 0 && start === 0);
  if (!atStart && at <= start) return segments;
  const index = atStart ? -1 : segments.findIndex(({ position }) => position >= at);
  if (!atStart && index < 0) return segments;
  const kept = segments.slice(0, index + 1);
  const next = segments[index + 1];
  const base = kept.at(-1) ?? payload('', 0, start);
  if (plan.midEvent === true && next !== undefined) {
    kept.push({ ...base, text: next.text.slice(0, next.text.length >> 1), gapMs: next.gapMs });
  }
  kept.push({ ...base, text: '', gapMs, ending });
  return kept;
}

/** With a length the head must promise the whole body, also when only part of it will come. */
function fullLength(answer: Answer, plan: FaultPlan, bytes: number): number {
  const cut = plan.cut ?? plan.stall ?? plan.killAfter;
  if (cut === undefined) return bytes;
  const whole = answer.stream ? streamPayloads(answer) : wholePayloads(answer);
  return bendEvents(whole, plan, answer).reduce((sum, { text }) => sum + text.length, 0);
}

function headFraming(plan: FaultPlan, framing: Framing, bytes: number, reusable: boolean): string {
  const length = `content-length: ${bytes}\r\n`;
  switch (plan.length) {
    case 'duplicate':
      return `${length}content-length: ${bytes + 1}\r\n\r\n`;
    case 'invalid':
      return 'content-length: 12abc\r\n\r\n';
    case 'negative':
      return 'content-length: -1\r\n\r\n';
    case 'with-chunked':
      return `${length}transfer-encoding: chunked\r\n\r\n`;
    case 'short':
      return `content-length: ${bytes >> 1}\r\n\r\n`;
    case 'long':
      return `content-length: ${bytes * 2 + 1}\r\n\r\n`;
    default:
      return framingLines(framing, bytes, reusable);
  }
}

function framed(payloads: Segment[], plan: FaultPlan, framing: Framing, start: number): Segment[] {
  const chunked =
    plan.length === undefined ? framing === 'chunked' : plan.length === 'with-chunked';
  const segments = chunked
    ? payloads.map((s) => (s.text === '' ? s : { ...s, text: chunk(s.text) }))
    : payloads.slice();
  if (plan.truncateChunk !== undefined) {
    return brokenAt(segments, plan.truncateChunk, start, (next) => next.slice(0, next.length >> 1));
  }
  if (plan.garbage !== undefined) return brokenAt(segments, plan.garbage, start, () => GARBAGE);
  const last = segments.at(-1);
  const ended = last !== undefined && last.ending !== 'none' && last.ending !== 'hold';
  if (ended) return segments;
  const end = framing === 'close' || plan.length !== undefined ? 'fin' : 'done';
  const tail = payload(chunked ? LAST_CHUNK : '', last?.tokens ?? 0, last?.position ?? start);
  return [...segments, { ...tail, ending: end }];
}

/** Replaces everything after `position` by what `broken` makes of the next segment, then FIN. */
function brokenAt(
  segments: Segment[],
  position: number,
  start: number,
  broken: (next: string) => string,
): Segment[] {
  if (position > 0 && position <= start) return segments;
  const index = position === 0 ? -1 : segments.findIndex((segment) => segment.position >= position);
  const kept = segments.slice(0, index + 1);
  const next = segments[index + 1] ?? payload(LAST_CHUNK, 0, start);
  const base = kept.at(-1) ?? payload('', 0, start);
  return [...kept, { ...base, text: broken(next.text), gapMs: next.gapMs, ending: 'fin' }];
}

function bendBytes(segments: Segment[], plan: FaultPlan): Segment[] {
  const slow = plan.slow ?? 1;
  let bent = slow === 1 ? segments : segments.map((s) => ({ ...s, gapMs: s.gapMs * slow }));
  const [head, ...body] = bent;
  if (head !== undefined) {
    const early = body[0];
    const delayed = { ...head, gapMs: head.gapMs + (plan.delayMs ?? 0) };
    // Before the headers nothing is sent at all, not even the head.
    const silent = early !== undefined && (plan.cut?.at ?? plan.stall) === 'headers';
    bent = silent ? [{ ...early, gapMs: delayed.gapMs }] : [delayed, ...body];
    if (!silent && plan.dripRawMs !== undefined) bent = [delayed, ...drip(body, plan.dripRawMs)];
  }
  if (plan.splitRaw !== undefined) bent = splitAt(bent, plan.splitRaw);
  if (plan.cutByte !== undefined) {
    const { kind, at } = plan.cutByte;
    const cut = splitAt(bent, at);
    const end = prefixCount(cut, at);
    const base = cut[end - 1] ?? payload('', 0, 0);
    if (end < cut.length) {
      bent = [...cut.slice(0, end), { ...base, text: '', gapMs: BEFORE_CUT_MS, ending: kind }];
    }
  }
  return bent;
}

/** Number of leading segments that hold the first `bytes` bytes, when a border is there. */
function prefixCount(segments: readonly Segment[], bytes: number): number {
  let sum = 0;
  let index = 0;
  while (sum < bytes && index < segments.length) sum += segments[index++]?.text.length ?? 0;
  return index;
}

/** Makes a pause after `bytes` bytes. */
function splitAt(segments: Segment[], bytes: number): Segment[] {
  let before = 0;
  for (const [i, segment] of segments.entries()) {
    const at = bytes - before;
    before += segment.text.length;
    if (at < 0 || at >= segment.text.length) continue;
    const first = partOf(segment, segments[i - 1], segment.text.slice(0, at), segment.gapMs);
    const rest = { ...segment, text: segment.text.slice(at), gapMs: SPLIT_MS };
    return segments.toSpliced(i, 1, first, rest);
  }
  return segments;
}

function drip(segments: Segment[], ms: number): Segment[] {
  const dripped: Segment[] = [];
  for (const [at, segment] of segments.entries()) {
    const before = segments[at - 1];
    if (segment.text === '' || dripped.length + segment.text.length > DRIP_BYTES_MAX) {
      dripped.push(segment);
      continue;
    }
    for (let i = 0; i < segment.text.length; i++) {
      const gapMs = i === 0 ? Math.max(segment.gapMs, ms) : ms;
      const text = segment.text[i] ?? '';
      const last = i === segment.text.length - 1;
      dripped.push(last ? { ...segment, text, gapMs } : partOf(segment, before, text, gapMs));
    }
  }
  return dripped;
}

/** A part of a segment that is not its last: its tokens have not arrived yet. */
function partOf(of: Segment, before: Segment | undefined, text: string, gapMs: number): Segment {
  const tokens = before?.tokens ?? 0;
  return { ...of, text, gapMs, tokens, position: before?.position ?? 0, ending: 'none' };
}
