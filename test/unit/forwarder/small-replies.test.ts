/**
 * A reply that is judged before its client has any of it: with the streams and answers of the simulated
 * replica, in every API, cut in every way.
 */
import { describe, expect, test } from 'vitest';
import { EventStream, type StreamSink } from '../../../src/forwarder/event-stream.ts';
import { failures } from '../../../src/forwarder/failure.ts';
import { SmallReplies, SmallReply } from '../../../src/forwarder/small-replies.ts';
import { WholeAnswer, type WholeSink } from '../../../src/forwarder/whole-answer.ts';
import { Membership } from '../../../src/gateway/membership.ts';
import { GoOn } from '../../../src/lib/go-on.ts';
import { createPrng } from '../../../src/lib/prng.ts';
import { ReplyJudge, type ReplyRules } from '../../../src/protocol/reply-judge.ts';
import { type AnswerShape, routes } from '../../../src/protocol/routes.ts';
import { GenerationAnswer } from '../../../src/replica/answer.ts';
import {
  type Api,
  filtered,
  generationRoutes,
  readGeneration,
} from '../../../src/replica/generation.ts';
import { parseProfile } from '../../../src/replica/profile.ts';
import { createMemory } from '../../../src/shm/memory.ts';
import { RequestFlag } from '../../../src/shm/request-slots.layout.ts';
import { RequestSlots } from '../../../src/shm/request-slots.ts';
import { Routable } from '../../../src/shm/routable.ts';

const rules: ReplyRules = {
  refusal: true,
  finishReasons: ['length', 'max_tokens', 'max_output_tokens'],
  header: '',
  field: 'low_confidence',
};
const apis = [...generationRoutes];
const kinds = ['plain', 'refusal', 'filtered', 'unsure', 'length'] as const;
type Kind = (typeof kinds)[number];

/** What a replica says, as a stream or whole. */
function reply(api: Api, kind: Kind, stream: boolean): Buffer {
  const prompt = {
    prompt: 'p [[len=4]]',
    input: 'p [[len=4]]',
    messages: [{ role: 'user', content: 'p [[len=4]]' }],
  };
  const limit = kind === 'length' ? 3 : 9;
  const profile = parseProfile('instant');
  if (typeof profile === 'string') throw new Error(profile);
  const body = { ...prompt, stream, max_tokens: limit, max_output_tokens: limit };
  const read = readGeneration(api, body, profile);
  if (typeof read === 'string') throw new Error(read);
  const hasPlace = api === 'chat' || api === 'responses';
  const isEmpty = kind === 'filtered' || (kind === 'refusal' && !hasPlace);
  const of = isEmpty ? filtered(read) : { ...read, refuses: kind === 'refusal' };
  const generation = { ...of, isUnsure: kind === 'unsure' };
  const answer = new GenerationAnswer(generation, 'small-1', 0, profile, createPrng(1), '');
  if (!stream) return Buffer.from(answer.body(), 'latin1');
  const steps = Array.from({ length: answer.steps }, (_, step) => answer.payload(step));
  return Buffer.from(steps.join(''), 'latin1');
}

/** All that a client of the reply gets, and how it ends. */
function client(shape: AnswerShape, isLargerUp = true) {
  const seen = { text: '', end: '', tokens: 0 };
  const sink: StreamSink & WholeSink = {
    committed: false,
    commit: () => {
      (sink as { committed: boolean }).committed = true;
      return true;
    },
    emit: (bytes) => {
      seen.text += Buffer.from(bytes).toString('latin1');
    },
    whole: (body) => {
      seen.text += Buffer.concat(body).toString('latin1');
    },
    token: (events) => {
      seen.tokens += events;
    },
    progress: () => {},
    dropped: () => {},
    complete: () => {
      seen.end += 'complete ';
    },
    askAgain: () => {
      seen.end += 'askAgain ';
    },
    discard: ({ error }) => {
      seen.end += `${error} `;
    },
    fail: () => {
      seen.end += 'fail ';
    },
    handOver: () => {
      seen.end += 'handOver ';
    },
  };
  const judge = new SmallReply(new ReplyJudge(rules, shape), () => isLargerUp);
  const facts = { status: 200, shape, choices: 1, contentLength: -1, framed: true, isJson: true };
  return { seen, sink, facts, judge };
}

const shapeOf = (path: string): AnswerShape => {
  const route = routes.find((of) => of.path === path && of.method === 'POST');
  if (route === undefined) throw new Error(path);
  return route.shape;
};

const [refused, unsure] = ['124 ', '88 '];
/** What becomes of it: a stream that was cut for its length had begun. */
const endOf = (kind: Kind, stream: boolean): string => {
  if (kind === 'plain' || (kind === 'length' && stream)) return 'complete ';
  return kind === 'unsure' ? unsure! : refused!;
};

describe.each(apis)('%s', (path, api) => {
  const shape = shapeOf(path);

  test.each(kinds)('a stream, %s: in two pieces, wherever it is cut, and byte by byte', (kind) => {
    const bytes = reply(api, kind, true);
    const expected = endOf(kind, true);
    const said = expected === 'complete ' ? bytes.toString('latin1') : '';
    for (let at = 0; at <= bytes.length; at++) {
      const { seen, sink, facts, judge } = client(shape);
      const stream = new EventStream(sink, facts, undefined, judge);
      const parts =
        at === bytes.length
          ? Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))
          : [bytes.subarray(0, at), bytes.subarray(at)];
      for (const part of parts) stream.push(Uint8Array.from(part));
      stream.end(undefined);
      expect(seen.end, `at ${at}`).toBe(expected);
      expect(seen.text).toBe(said);
      // What nobody gets is no first token.
      if (said === '') expect(seen.tokens).toBe(0);
    }
  });

  test.each(kinds)('a whole answer, %s, in pieces', (kind) => {
    const bytes = reply(api, kind, false);
    const expected = endOf(kind, false);
    for (let at = 0; at <= bytes.length; at++) {
      const { seen, sink, facts, judge } = client(shape);
      const answer = new WholeAnswer(sink, facts, 1 << 20, judge);
      answer.push(bytes.subarray(0, at));
      answer.push(bytes.subarray(at));
      answer.end(undefined);
      expect(seen.end).toBe(expected);
      expect(seen.text).toBe(expected === 'complete ' ? bytes.toString('latin1') : '');
    }
  });

  test.each(kinds)('it passes while nobody is there to do better: %s', (kind) => {
    for (const stream of [false, true]) {
      const bytes = reply(api, kind, stream);
      const { seen, sink, facts, judge } = client(shape, false);
      const answer = stream
        ? new EventStream(sink, facts, undefined, judge)
        : new WholeAnswer(sink, facts, 1 << 20, judge);
      answer.push(Uint8Array.from(bytes));
      answer.end(undefined);
      expect(seen).toMatchObject({ end: 'complete ', text: bytes.toString('latin1') });
    }
  });

  test('an answer that is larger than may be held passes', () => {
    const bytes = reply(api, 'length', false);
    const { seen, sink, facts, judge } = client(shape);
    const answer = new WholeAnswer(sink, facts, bytes.length - 1, judge);
    answer.push(bytes);
    answer.end(undefined);
    expect(seen).toMatchObject({ end: 'complete ', text: bytes.toString('latin1') });
  });

  test('an error is one, whatever else it says', () => {
    const { seen, sink, facts, judge } = client(shape);
    const answer = new WholeAnswer(sink, facts, 1 << 20, judge);
    answer.push(Buffer.from('{"error":{"message":"x"},"low_confidence":true}'));
    answer.end(undefined);
    expect(seen).toMatchObject({ end: 'fail ', text: '' });
  });
});

describe('the table', () => {
  const memory = createMemory({
    ...{ acceptors: 1, forwarders: 1, slots: 8, arenaBytes: 65_536, responseRingBytes: 65_536 },
  });
  const slots = new RequestSlots(memory.slots, 8);
  const members = new Membership(memory, [['big-lora', 'other-lora']]);
  const models = [1, 2].map((adapter) => ({
    ...{ name: `small-${adapter}`, aliases: [], policy: 'random', sessionAffinity: true },
    cascade: { model: 0, adapter, promptBytes: 0, onReply: rules },
  }));
  const replies = new SmallReplies(slots, models, new Routable(memory.replicas));
  const body = Buffer.from('{"choices":[{"finish_reason":"length"}]}');
  const ask = (asked: number, goOn: number) => {
    const row = slots.row(0);
    slots.words[row + slots.at.flags] = RequestFlag.judged;
    slots.words[row + slots.at.route] = routes.find(({ shape }) => shape === 'openai-chat')!.id;
    slots.words[row + slots.at.askedModel] = asked;
    slots.words[row + slots.at.goOn] = goOn;
    return replies.judgeOf(0);
  };

  test('only replies are judged for which the scheduler knows of a larger model', () => {
    expect(ask(0, GoOn.larger)).toBeInstanceOf(SmallReply);
    expect([ask(0, 0), ask(0, GoOn.longer)]).toEqual([undefined, undefined]);
  });

  test('a larger model is up where its adapter is', () => {
    const spec = {
      ...{ name: 'r', url: 'http://r:1', api_key: '', weight: 1, max_in_flight: 8 },
      ...{ prefill_us: 21.2, resident_us: 0.06, kv_tokens: 0, adapters: ['other-lora'] },
    };
    const member = members.add(spec, 0)!;
    members.activate(member);
    members.setHealthy(member, true, '');
    expect(ask(0, GoOn.larger)?.ofBody(body)).toBe(undefined);
    expect(ask(1, GoOn.larger)?.ofBody(body)).toBe(failures.replyRefused);
  });
});
