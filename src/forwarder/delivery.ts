/**
 * What the client of a stream has been given, over all attempts: enough to have another replica go on
 * behind it, and to make its chunks look like those of the first; or, with `stream_usage` alone, to know
 * what it used. Forwarder threads; one for each request, kept while the scheduler looks for a replica.
 *
 * Tokens are counted by the usage in the chunks, which the gateway asks for and takes out again where
 * the client did not; an event with text and no usage counts as one. With token ids these are counted,
 * and where the usage says another number some were left out: nothing goes on behind that. A chat that
 * is continued as a completion gets its chunks back as those of a chat.
 */
import { Buffer } from 'node:buffer';
import { errorOf } from '../errors/catalogue.ts';
import { type Edit, edit, noEdits } from '../protocol/byte-edits.ts';
import { Observed, type Usage } from '../protocol/completion-observer.ts';
import { addsOptions, type ContinuationPlan, tokensLeft } from '../protocol/continuation.ts';
import {
  completionBody,
  completionPath,
  continuedBody,
  observedBody,
} from '../protocol/continued-body.ts';
import { eventBytesMaxDefault, type SseEvent } from '../protocol/sse-scanner.ts';
import { type Member, StreamChunk, without } from '../protocol/stream-chunk.ts';
import { Asks } from '../protocol/stream-options.ts';
import { Outcome } from '../shm/rings.layout.ts';
import type { Delivered } from './delivered.ts';
import { DeliveredIds } from './delivered-ids.ts';
import { deliveredNothing } from './delivered-nothing.ts';
import { DeliveredText } from './delivered-text.ts';
import type { Failure } from './failure.ts';

/** What becomes of a stream that broke. */
export const Break = { ends: 0, continues: 1, isComplete: 2 } as const;
export type Break = (typeof Break)[keyof typeof Break];

/** What the attempts before the current one have left. */
export interface Earlier {
  readonly usage: Usage;
  readonly lastTokenUs: number;
}

const deltaStart = Buffer.from('"delta":{"content":');
const deltaEnd = Buffer.from('}');
const doneEvent = 'data: [DONE]\n\n';

/** Of the event at hand, of whichever stream. */
const chunk = new StreamChunk();

/** What the ids of a prompt can take for each byte of its request, in an event, and at the very most. */
const idBytesPerByte = 8;
const idBytesMax = 32 * 1024 * 1024;
/** The ids of a longer request are not asked for: the event that brings them could be too large. */
export const idBodyBytesMax = idBytesMax / idBytesPerByte;

/** The part of a request that an attempt is made of. */
export interface Sent {
  readonly path: string;
  readonly body: Buffer;
  /** What of the usage a first attempt asks for unlike its client: the replica may refuse that. */
  readonly adds: Asks;
}

export class Delivery {
  readonly plan: ContinuationPlan;
  readonly bytesMax: number;
  readonly #kept: Delivered;
  /** Values of the first chunk, as JSON. */
  #id = '';
  #created = '';
  #model = '';
  /** An event was lost, or carried what text cannot continue. */
  #isBlocked = false;
  /** Reasoning has come, and no text behind it. */
  #isReasoning = false;
  #hasFinish = false;
  #hasUsageChunk = false;
  /** The ids of the prompt of the current attempt may come. */
  #awaitsPrompt = false;
  /** The client has events with ids whose text has not come. */
  #isAhead = false;
  /** Of the current attempt: tokens that came, those of them the client has, what its replica said. */
  #came = 0;
  #given = 0;
  #usage: Usage = { prompt: -1, completion: -1, cached: -1 };
  /** Earlier attempts, as far as the client has them. */
  earlier: Earlier | undefined;
  /** `[DONE]` has come: nothing waits for what follows. */
  #isDone = false;

  constructor(plan: ContinuationPlan, bytesMax: number) {
    this.plan = plan;
    this.bytesMax = bytesMax;
    if (plan.mode === 'usage') this.#kept = deliveredNothing;
    else if (plan.mode === 'token_ids') this.#kept = new DeliveredIds(bytesMax);
    else this.#kept = new DeliveredText(bytesMax, this.#isChat);
  }

  /** What the observer of the current attempt fills before an event is taken. */
  get parts(): StreamChunk {
    return chunk;
  }

  get isContinued(): boolean {
    return this.earlier !== undefined;
  }

  /** What the next event may have: in that with the ids of the prompt there is room for these. */
  get eventBytesMax(): number {
    const idBytes = Math.min(idBytesPerByte * (this.plan.endAt + this.#tokensBefore), idBytesMax);
    return eventBytesMaxDefault + (this.#awaitsPrompt ? idBytes : 0);
  }

  /** Nothing more is given to the client before what follows is known. */
  get isWaiting(): boolean {
    return this.#kept.isWaiting && !this.#isDone;
  }

  /**
   * Begins an attempt: what it sends, made of what the client sent; `rename` is changed in it as well.
   * The usage is asked for as far as the replica `takes` that.
   */
  begin(
    path: string,
    body: Buffer,
    rename: readonly Edit[] = noEdits,
    takes: Asks = Asks.usageAlways,
  ): Sent {
    const plan = takes < this.plan.asks ? { ...this.plan, asks: takes } : this.plan;
    this.#kept.begin();
    this.#came = this.#given = 0;
    this.#usage = { prompt: -1, completion: -1, cached: -1 };
    this.#isReasoning = this.#isAhead = false;
    this.#awaitsPrompt = plan.mode === 'token_ids';
    if (this.earlier === undefined || this.#kept.isEmpty) {
      const adds = !this.isContinued && addsOptions(plan) ? plan.asks : Asks.nothing;
      return { path, body: observedBody(body, plan, rename), adds };
    }
    const { bytes } = this.#kept;
    const adds = Asks.nothing;
    if (plan.mode === 'text') {
      return { path, body: continuedBody(body, plan, bytes, this.#tokensBefore, rename), adds };
    }
    const completion = completionBody(body, plan, bytes, this.#tokensBefore, rename);
    return { path: completionPath(path), body: completion, adds };
  }

  /** What the current attempt used, of what the client has. */
  get usage(): Usage {
    return {
      prompt: this.isContinued ? -1 : this.#promptTokens,
      completion: this.#given,
      cached: this.isContinued ? -1 : this.#usage.cached,
    };
  }

  /**
   * What is changed in an event, `flags` being what it carries, before the client gets it: edits of its
   * data. Undefined: the client does not get it.
   */
  take(event: SseEvent, flags: number, usage: Usage): readonly Edit[] | undefined {
    if (event.dataLines === 0) return noEdits;
    if ((flags & Observed.done) !== 0) {
      this.#isDone = true;
      const missing = this.#missingUsage();
      return missing === '' ? noEdits : [edit(event.start, event.start, missing)];
    }
    this.#note(event, flags, usage);
    const isUsage = (flags & Observed.usageOnly) !== 0 || !chunk.hasChoices;
    if ((flags & Observed.usage) !== 0 && isUsage && chunk.usage.end > 0) {
      if (!this.plan.wantsUsage) return undefined;
      this.#hasUsageChunk = true;
    } else if (this.isContinued && (flags & (Observed.token | Observed.finish)) === 0) {
      // A second role, or a token without text.
      if (!this.plan.wantsIds || chunk.tokenIds.end === 0) return undefined;
    }
    return this.#editsOf(event.data, flags);
  }

  /** Everything taken so far is on its way to the client. */
  confirm(): void {
    this.#isAhead = this.isWaiting && this.plan.mode === 'token_ids';
    if (this.#isAhead) return; // there was more than can wait
    this.#given = this.#came;
    this.#kept.confirm();
  }

  /** The stream ends: everything taken is the client's, and nothing follows. */
  close(): void {
    this.#isDone = true;
    this.confirm();
  }

  /** An event was left out of the stream that may have been text. */
  block(): void {
    this.#isBlocked = true;
  }

  /** What becomes of the stream that broke by `failure`. What was not given to the client is gone. */
  onBreak(failure: Failure): Break {
    this.#kept.withdraw();
    if (this.plan.mode === 'usage') return Break.ends;
    if (!isContinuable(failure) || this.#isBlocked) return Break.ends;
    if (this.#hasFinish) return Break.isComplete;
    if (this.#isReasoning || !this.#kept.canContinue) return Break.ends;
    // Its ids would come once more.
    if (this.#isAhead && this.plan.wantsIds) return Break.ends;
    const left = tokensLeft(this.plan, this.#tokensBefore + this.#given);
    return left > 0 ? Break.continues : Break.isComplete;
  }

  /** The attempt is over and another one is to go on. */
  suspend(lastTokenUs: number): void {
    const { prompt: counted, cached } = this.earlier?.usage ?? this.#usage;
    const prompt = counted >= 0 ? counted : this.#kept.promptTokens;
    const completion = this.#tokensBefore + this.#given;
    this.earlier = { usage: { prompt, completion, cached }, lastTokenUs };
  }

  /** The events that a stream lacks whose text is complete. */
  ending(): Buffer {
    if (this.plan.mode === 'usage') return Buffer.alloc(0);
    const finish = this.#hasFinish ? '' : this.#event(`[${this.#lastChoice}]`, '');
    return Buffer.from(finish + this.#missingUsage() + doneEvent);
  }

  get #isChat(): boolean {
    return this.plan.shape === 'openai-chat';
  }

  /** Of the first attempt. */
  get #promptTokens(): number {
    return this.#usage.prompt >= 0 ? this.#usage.prompt : this.#kept.promptTokens;
  }

  get #tokensBefore(): number {
    return this.earlier?.usage.completion ?? 0;
  }

  get #lastChoice(): string {
    const what = this.#isChat ? '"delta":{}' : '"text":""';
    return `{"index":0,${what},"logprobs":null,"finish_reason":"length"}`;
  }

  #note({ data }: SseEvent, flags: number, usage: Usage): void {
    if (!chunk.isPlain) this.#isBlocked = true;
    if (this.#id === '' && !this.isContinued) {
      this.#id = textOf(data, chunk.id);
      this.#created = textOf(data, chunk.created);
      this.#model = textOf(data, chunk.model);
    }
    if (chunk.content.end - chunk.content.start > 2) this.#isReasoning = false;
    else if (chunk.reasons) this.#isReasoning = true;
    if ((flags & Observed.finish) !== 0) this.#hasFinish = true;
    if ((flags & (Observed.token | Observed.finish)) !== 0 || chunk.namesPrompt(data)) {
      this.#awaitsPrompt = false;
    }
    if ((flags & Observed.token) !== 0) this.#came++;
    if ((flags & Observed.usage) !== 0) {
      const { prompt, completion, cached } = usage;
      this.#usage.prompt = prompt;
      this.#usage.completion = completion;
      this.#usage.cached = cached;
      if (usage.completion >= 0) this.#came = usage.completion;
    }
    this.#kept.note(data, chunk, this.#hasFinish);
    const { came } = this.#kept;
    if (came < 0) return;
    const isCounted = (flags & Observed.usage) !== 0 && usage.completion >= 0;
    if (isCounted && usage.completion !== came) this.#isBlocked = true;
    this.#came = came;
  }

  #editsOf(data: Uint8Array, flags: number): Edit[] {
    const edits: Edit[] = [];
    const unwanted: Member[] = [];
    const { wantsUsage, wantsContinuousUsage, wantsIds, mode } = this.plan;
    const isUsageOnly = (flags & Observed.usageOnly) !== 0;
    const { start, end } = chunk.usage;
    // Who was asked for it at the end says null before.
    const isNull = end > 0 && (flags & Observed.usage) === 0;
    if (isNull && !wantsUsage) unwanted.push(chunk.usage);
    if ((flags & Observed.usage) !== 0 && end > 0) {
      if (!wantsContinuousUsage && !isUsageOnly) unwanted.push(chunk.usage);
      else if (this.isContinued) edits.push(edit(start, end, this.#usageJson));
    }
    if (mode === 'token_ids') {
      if (!wantsIds) unwanted.push(chunk.tokenIds);
      if (!wantsIds || this.isContinued) unwanted.push(chunk.promptIds, chunk.choicePromptIds);
    }
    if (!this.isContinued) return unwanted.length === 0 ? edits : without(data, unwanted);
    const replace = ({ start, end }: Member, text: string): void => {
      if (end > 0 && text !== '') edits.push(edit(start, end, text));
    };
    replace(chunk.id, this.#id);
    replace(chunk.created, this.#created);
    replace(chunk.model, this.#model);
    unwanted.push(chunk.role);
    if (this.#isChat && chunk.isCompletion) {
      const { at, start: from, end: to } = chunk.content;
      edits.push(edit(at, to, Buffer.concat([deltaStart, data.subarray(from, to), deltaEnd])));
      replace(chunk.object, '"chat.completion.chunk"');
    }
    return [...edits, ...without(data, unwanted)];
  }

  /** Of the whole answer so far. */
  get #usageJson(): string {
    const before = this.earlier?.usage;
    const completion = this.#tokensBefore + this.#came;
    // Whoever continues was given the delivered text as a part of its prompt.
    const { prompt: all } = this.#usage;
    const read = Math.max(0, all >= 0 ? all - this.#tokensBefore : this.#kept.promptTokens);
    const prompt = before !== undefined && before.prompt >= 0 ? before.prompt : read;
    const cached = before?.cached ?? this.#usage.cached;
    const details = cached >= 0 ? `,"prompt_tokens_details":{"cached_tokens":${cached}}` : '';
    return `{"prompt_tokens":${prompt},"total_tokens":${prompt + completion},"completion_tokens":${completion}${details}}`;
  }

  /** The usage the client asked for, if it has not got it and it is known. */
  #missingUsage(): string {
    const isKnown = this.#promptTokens >= 0 || (this.earlier?.usage.prompt ?? -1) >= 0;
    const isAsked = this.plan.wantsUsage && this.plan.mode !== 'usage';
    if (!isAsked || this.#hasUsageChunk || !isKnown) return '';
    this.#hasUsageChunk = true;
    return this.#event('[]', `,"usage":${this.#usageJson}`);
  }

  #event(choices: string, more: string): string {
    const object = this.#isChat ? 'chat.completion.chunk' : 'text_completion';
    const named = (key: string, value: string): string =>
      value === '' ? '' : `"${key}":${value},`;
    const open = `${named('id', this.#id)}"object":"${object}",${named('created', this.#created)}`;
    return `data: {${open}${named('model', this.#model)}"choices":${choices}${more}}\n\n`;
  }
}

const textOf = (data: Uint8Array, { start, end }: Member): string =>
  end === 0 ? '' : Buffer.from(data.subarray(start, end)).toString();

/** The replica failed, not the client, the gateway or the time the request had. */
export function isContinuable({ outcome, error }: Failure): boolean {
  const { dead, slow, truncated } = Outcome;
  const isReplicas = outcome === dead || outcome === slow || outcome === truncated;
  return isReplicas && errorOf(error).retry !== 'never';
}
