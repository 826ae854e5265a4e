/**
 * The responses that this replica keeps, as vLLM does: in its memory, so that nobody else can answer for
 * them. Runs on the replica's event loop.
 *
 * A response can be read from its start on. In the background it is queued until its tokens would have come,
 * and can be cancelled until then. DELETE and input_items, which engines lack, are those of OpenAI.
 */
import type { Prng } from '../lib/prng.ts';
import { type Answer, GenerationAnswer, jsonAnswer, plainAnswer } from './answer.ts';
import { errorAnswer } from './errors.ts';
import type { Body, Generation } from './generation.ts';
import type { Profile } from './profile.ts';

interface Stored {
  readonly answer: GenerationAnswer;
  /** The same as a stream, from its start. */
  readonly replay: () => GenerationAnswer;
  readonly input: unknown;
  readonly isBackground: boolean;
  /** When it is complete. */
  readonly doneMs: number;
  isCancelled: boolean;
}

const storedMax = 256;
const prefix = '/v1/responses/';
const eventStream = 'text/event-stream; charset=utf-8';
const sequenceNumber = /"sequence_number":(\d+)/;

export class ResponseStore {
  readonly #stored = new Map<string, Stored>();
  readonly #profile: Profile;
  readonly #random: Prng;

  constructor(profile: Profile, random: Prng) {
    this.#profile = profile;
    this.#random = random;
  }

  /** Why a request cannot be served; undefined: it can. */
  problem(body: Body, path: string): Answer | undefined {
    const { previous_response_id: previous, background, store } = body;
    if (background === true && store === false) {
      return errorAnswer(400, 'background needs store', path);
    }
    return typeof previous === 'string' && !this.#stored.has(previous)
      ? notFound(previous, path)
      : undefined;
  }

  /** Keeps the answer, unless it is not to be kept. Returns what is answered at once. */
  keep(id: string, body: Body, generation: Generation, created: number, headers: string): Answer {
    const number = id.slice('resp_'.length);
    const answerOf = (of: Generation): GenerationAnswer =>
      new GenerationAnswer(of, number, created, this.#profile, this.#random, headers);
    const answer = answerOf(generation);
    if (body.store === false) return answer;
    const whole = answerOf({ ...generation, stream: false });
    const isBackground = body.background === true;
    const oldest = this.#stored.keys().next().value;
    if (this.#stored.size >= storedMax && oldest !== undefined) this.#stored.delete(oldest);
    const stored: Stored = {
      ...{
        answer: whole,
        replay: () => answerOf({ ...generation, stream: true }),
        input: body.input,
      },
      ...{ isBackground, doneMs: performance.now() + whole.headMs, isCancelled: false },
    };
    this.#stored.set(id, stored);
    return isBackground && !generation.stream ? jsonAnswer(200, stateOf(stored), headers) : answer;
  }

  /** Answers a request for `/v1/responses/{id}` and what is behind it. */
  answer(method: string, target: string): Answer {
    const url = new URL(target, 'http://replica');
    const path = url.pathname;
    const [id = '', action = ''] = path.slice(prefix.length).split('/');
    const stored = this.#stored.get(id);
    if (stored === undefined) return notFound(id, path);
    switch (`${method} ${action}`) {
      case 'GET ':
        return url.searchParams.get('stream') === 'true'
          ? replayed(stored, url.searchParams.get('starting_after'))
          : bodyOf(stored);
      case 'GET input_items':
        return jsonAnswer(200, inputItems(id, stored.input));
      case 'POST cancel':
        return cancel(stored, path);
      case 'DELETE ':
        this.#stored.delete(id);
        return jsonAnswer(200, { id, object: 'response', deleted: true });
      default:
        return errorAnswer(405, `no ${method} on this path`, path);
    }
  }
}

const notFound = (id: string, path: string): Answer =>
  errorAnswer(404, `Response with id '${id}' not found.`, path);

const isDone = ({ doneMs, isBackground }: Stored): boolean =>
  !isBackground || performance.now() >= doneMs;

function bodyOf(stored: Stored): Answer {
  if (isDone(stored) && !stored.isCancelled) {
    return plainAnswer(200, 'application/json', stored.answer.body());
  }
  return jsonAnswer(200, stateOf(stored));
}

/** Of one that is not complete. */
function stateOf({ answer, isCancelled }: Stored): object {
  const { id, object, created_at, model } = JSON.parse(answer.body()) as Record<string, unknown>;
  const status = isCancelled ? 'cancelled' : 'queued';
  return { id, object, created_at, model, status, background: true, output: [], usage: null };
}

function cancel(stored: Stored, path: string): Answer {
  if (isDone(stored)) return errorAnswer(400, 'Cannot cancel a synchronous response.', path);
  stored.isCancelled = true;
  return jsonAnswer(200, stateOf(stored));
}

function replayed({ replay }: Stored, startingAfter: string | null): Answer {
  const after = startingAfter === null ? -1 : Number(startingAfter);
  const again = replay();
  const steps = Array.from({ length: again.steps }, (_, step) => again.payload(step));
  const events = steps.join('').split('\n\n').slice(0, -1);
  const wanted = events.filter((event) => Number(sequenceNumber.exec(event)?.[1]) > after);
  return plainAnswer(200, eventStream, wanted.map((event) => `${event}\n\n`).join(''));
}

function inputItems(id: string, input: unknown): object {
  const items: readonly unknown[] = Array.isArray(input)
    ? input
    : [{ role: 'user', content: input }];
  const data = items.map((item, i) => {
    const { role = 'user', content = '' } = item as { role?: unknown; content?: unknown };
    const parts = typeof content === 'string' ? [{ type: 'input_text', text: content }] : content;
    return { type: 'message', id: `in_${id}_${i}`, role, content: parts };
  });
  const ends = { first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null };
  return { object: 'list', data, ...ends, has_more: false };
}
