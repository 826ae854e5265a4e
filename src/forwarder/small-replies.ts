/**
 * Replies of small models that may be discarded for those of larger ones (protocol/reply-judge.ts). Forwarder
 * threads; what is needed of a request is in its row.
 *
 * A reply is judged before anything of it is given to the client, and no more of it is held for that than is
 * held in any case (hold.ts, whole-answer.ts): its head; a whole answer that fits in hand; the events of a
 * stream up to the first with content. While no replica of the larger model is up every reply passes. A
 * thread that dies before it has told of its judgement has told nobody: the small model is asked again, or, once
 * the slot says why it was given back, the larger one.
 */
import { faultPoint } from '../lib/fault-point.ts';
import { GoOn } from '../lib/go-on.ts';
import { Judgement, ReplyJudge } from '../protocol/reply-judge.ts';
import { routeOf } from '../protocol/routes.ts';
import type { SseEvent } from '../protocol/sse-scanner.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import type { RequestSlots } from '../shm/request-slots.ts';
import type { Routable } from '../shm/routable.ts';
import type { ModelRow } from '../shm/threads.ts';
import { type AnswerHeaders, single } from './answer-head.ts';
import { type Failure, failures } from './failure.ts';

export class SmallReplies {
  readonly #slots: RequestSlots;
  /** As the last reload has them. */
  models: readonly ModelRow[];
  readonly #replicas: Routable;

  constructor(slots: RequestSlots, models: readonly ModelRow[], replicas: Routable) {
    this.#slots = slots;
    this.models = models;
    this.#replicas = replicas;
  }

  /** Who judges the reply to the request; undefined: it passes as it is. */
  judgeOf(slot: number): SmallReply | undefined {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    if (((words[row + at.flags] as number) & RequestFlag.judged) === 0) return undefined;
    // Only where it is with the model it came for, and the scheduler knows of a larger one as well.
    if (((words[row + at.goOn] as number) & GoOn.larger) === 0) return undefined;
    const cascade = this.models[words[row + at.askedModel] as number]?.cascade;
    if (cascade?.onReply === undefined || this.#slots.isContinued(slot)) return undefined;
    const { shape } = routeOf(words[row + at.route] as number);
    const judge = new ReplyJudge(cascade.onReply, shape);
    return new SmallReply(judge, () => this.#replicas.has(cascade.model, cascade.adapter));
  }
}

/** The reply to one attempt. Why it is discarded; undefined: so far it is not. */
export class SmallReply {
  readonly #judge: ReplyJudge;
  readonly #isLargerUp: () => boolean;

  constructor(judge: ReplyJudge, isLargerUp: () => boolean) {
    this.#judge = judge;
    this.#isLargerUp = isLargerUp;
  }

  ofHead(headers: AnswerHeaders): Failure | undefined {
    const { header } = this.#judge;
    if (header === '' || headers[header] === undefined) return undefined;
    return this.#failureOf(this.#judge.ofHeader(single(headers[header])));
  }

  ofEvent({ data, dataLines, dataStart, dataEnd }: SseEvent): Failure | undefined {
    if (dataLines === 0) return undefined;
    return this.#failureOf(this.#judge.ofEvent(data, dataStart, dataEnd));
  }

  ofBody(body: Uint8Array): Failure | undefined {
    return this.#failureOf(this.#judge.ofBody(body));
  }

  #failureOf(judgement: Judgement): Failure | undefined {
    if (judgement === Judgement.passes || !this.#isLargerUp()) return undefined;
    faultPoint('judged');
    return judgement === Judgement.refused ? failures.replyRefused : failures.replyUnsure;
  }
}
