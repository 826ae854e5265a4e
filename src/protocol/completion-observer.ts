/**
 * Watches the answer of a replica: is it complete, has the first token come, what was used, is it
 * an error. Runs on forwarders; never blocks; one observer per stream, reset for each attempt.
 *
 * Each payload is walked once by the validating cursor, which reads the few keys that matter at the
 * depth where they mean something, so text that looks like a key cannot deceive it. Nothing is
 * parsed into objects. HTTP end is not stream end: `complete` is `[DONE]` (or the protocol's own
 * last event) or a finish reason for every choice, and nothing else.
 */
import { equalsAscii, JsonCursor } from './json-cursor.ts';
import { closeBrace, closeBracket, openBrace, openBracket, quote } from './json-skip.ts';
import { Observed } from './observed.ts';
import type { AnswerShape } from './routes.ts';
import type { SseEvent } from './sse-scanner.ts';
import type { StreamChunk } from './stream-chunk.ts';
import { jsonNumber, jsonText } from './text.ts';

export { Observed } from './observed.ts';

export interface Usage {
  /** -1 when the replica has not said. */
  prompt: number;
  completion: number;
  cached: number;
}

/** A replica that sends deeper or wider objects than these is not answering a completion. */
const depthMax = 64;
const keysMax = 100_000;
/** The largest n of vLLM; of more choices only the last event tells that they are complete. */
const choicesMax = 16_384;

const cursor = new JsonCursor();

export class CompletionObserver {
  sawDone = false;
  sawError = false;
  sawToken = false;
  /** Payloads that were neither JSON nor `[DONE]`. */
  malformed = 0;
  /** Payloads that carried tokens. */
  tokenEvents = 0;
  /** The id of the answer as the replica gave it; '' until seen. */
  id = '';
  readonly usage: Usage = { prompt: -1, completion: -1, cached: -1 };
  /** Prompt tokens as the replica counts them; the Messages API counts those of its cache apart. */
  #uncached = -1;
  #written = 0;
  #shape: AnswerShape = 'whole';
  #choices = 1;
  /** 1 for each choice that has a finish reason. */
  #hasFinished = new Uint8Array(1);
  #finished = 0;
  #flags = 0;
  /** The payload at hand is a response that failed; because of its replica, unless its code says otherwise. */
  #hasFailed = false;
  #blamesReplica = true;
  /** Choices that the payload at hand finishes; they count once it has proved to be JSON. */
  readonly #stagedIndexes: number[] = [];
  #staged = 0;
  readonly #parts: StreamChunk | undefined;

  /** `parts` is filled with those of each payload of a chat or a completion. */
  constructor(parts?: StreamChunk) {
    this.#parts = parts;
  }

  reset(shape: AnswerShape, choices: number): void {
    this.#shape = shape;
    this.#choices = Math.max(choices, 1);
    const followed = this.#choices <= choicesMax ? this.#choices : 0;
    if (followed === this.#hasFinished.length) this.#hasFinished.fill(0);
    else this.#hasFinished = new Uint8Array(followed);
    this.#finished = this.#written = 0;
    this.sawDone = this.sawError = this.sawToken = false;
    this.malformed = this.tokenEvents = 0;
    this.id = '';
    this.usage.prompt = this.usage.completion = this.usage.cached = this.#uncached = -1;
  }

  /** True when nothing that belongs to the answer can be missing. */
  get complete(): boolean {
    return this.sawDone || this.#finished >= this.#choices;
  }

  /** Takes one event of the scanner; returns bits of `Observed`, 0 for what carries no data. */
  onEvent(event: SseEvent): number {
    const { bytes, typeStart, typeEnd } = event;
    const isError = this.#shape !== 'stored' && equalsAscii(bytes, typeStart, typeEnd, 'error');
    if (isError) this.sawError = true;
    const flags =
      event.dataLines === 0 ? 0 : this.onPayload(event.data, event.dataStart, event.dataEnd);
    return isError ? flags | Observed.error : flags;
  }

  /** Takes the payload of one event; returns bits of `Observed`. */
  onPayload(data: Uint8Array, start: number, end: number): number {
    this.#flags = 0;
    this.#parts?.clear();
    while (end > start && data[end - 1] === 0x20) end--;
    if (data[start] === openBracket && equalsAscii(data, start, end, '[DONE]')) {
      this.#flags = Observed.done;
    } else {
      cursor.reset(data, start, end, depthMax, keysMax);
      this.#walkTop();
      if (!cursor.finished()) this.#flags = Observed.malformed;
    }
    return this.#account();
  }

  /** Takes a whole body that is no stream, or the head of one: facts found before a cut count. */
  onBody(body: Uint8Array, start: number, end: number): number {
    this.#flags = 0;
    cursor.reset(body, start, end, depthMax, keysMax);
    this.#walkTop();
    if (!cursor.finished()) this.#flags |= Observed.malformed;
    return this.#account();
  }

  #account(): number {
    const flags = this.#flags;
    if ((flags & Observed.token) !== 0) {
      this.sawToken = true;
      this.tokenEvents++;
    }
    if ((flags & Observed.done) !== 0) this.sawDone = true;
    if ((flags & Observed.error) !== 0) this.sawError = true;
    if ((flags & Observed.malformed) !== 0) this.malformed++;
    else if ((flags & Observed.finish) !== 0) this.#commitFinish();
    this.#staged = 0;
    return flags;
  }

  #commitFinish(): void {
    for (let i = 0; i < this.#staged; i++) {
      const index = this.#stagedIndexes[i] as number;
      if (this.#hasFinished[index] !== 0) continue; // again, or of a choice nobody asked for
      this.#hasFinished[index] = 1;
      this.#finished++;
    }
  }

  #walkTop(): void {
    if (!cursor.enterObject()) return;
    this.#hasFailed = false;
    this.#blamesReplica = true;
    while (cursor.nextMember()) {
      const { keyStart, keyEnd, position } = cursor;
      this.#takeTop(cursor.peek());
      this.#parts?.top(cursor.bytes, keyStart, keyEnd, position, cursor.position);
    }
    if (!this.#hasFailed) return;
    // A response that failed over its prompt is an answer: another replica would say the same.
    if (this.#blamesReplica) this.#flags |= Observed.done | Observed.error;
    else this.#flags = (this.#flags | Observed.done) & ~Observed.error;
  }

  #takeTop(first: number): void {
    if (this.#shape === 'stored' && !cursor.keyIs('type')) {
      cursor.skip();
      return;
    }
    switch (cursor.keyEnd - cursor.keyStart) {
      case 2:
        if (first === quote && this.id === '' && cursor.keyIs('id')) this.#takeId();
        else cursor.skip();
        break;
      case 4:
        if (first === quote && cursor.keyIs('type')) this.#takeType();
        else cursor.skip();
        break;
      case 5:
        this.#takeFiveLetterKey(first);
        break;
      case 6:
        if (first === quote && cursor.keyIs('object')) this.#takeObject();
        else if (first === quote && cursor.keyIs('status')) this.#takeStatus();
        else cursor.skip();
        break;
      case 7:
        if (first === openBracket && cursor.keyIs('choices')) this.#walkChoices();
        else if (first === openBrace && cursor.keyIs('message')) this.#walkEnvelope();
        else cursor.skip();
        break;
      case 8:
        if (first === openBrace && cursor.keyIs('response')) this.#walkEnvelope();
        else cursor.skip();
        break;
      default:
        cursor.skip();
    }
  }

  #takeFiveLetterKey(first: number): void {
    if (cursor.keyIs('usage') && first === openBrace) this.#walkUsage();
    else if (cursor.keyIs('delta') && first === openBrace) this.#walkMessageDelta();
    else if (cursor.keyIs('error') && (first === openBrace || first === quote)) {
      this.#takeError(first);
      this.#flags |= Observed.error;
    } else cursor.skip();
  }

  /** A response names what it failed over. */
  #takeError(first: number): void {
    if (first !== openBrace) return void cursor.skip();
    if (!cursor.enterObject()) return;
    while (cursor.nextMember()) {
      const isCode = cursor.keyIs('code') && cursor.peek() === quote;
      if (!cursor.skip() || !isCode) continue;
      this.#blamesReplica = valueIs('server_error') || valueIs('rate_limit_exceeded');
    }
  }

  #takeId(): void {
    if (cursor.skip() && cursor.valueEnd - cursor.valueStart <= 256) {
      this.id = jsonText(cursor.bytes, cursor.valueStart, cursor.valueEnd);
    }
  }

  #takeObject(): void {
    if (cursor.skip() && valueIs('error')) this.#flags |= Observed.error;
  }

  /** The status of a whole `/v1/responses` object. */
  #takeStatus(): void {
    if (!cursor.skip() || this.#shape !== 'responses') return;
    if (valueIs('failed')) this.#hasFailed = true;
    else if (valueIs('completed') || valueIs('incomplete')) this.#flags |= Observed.done;
  }

  #takeType(): void {
    if (!cursor.skip()) return;
    if (this.#shape === 'stored') {
      if (valueEndsWith('.delta')) this.#flags |= Observed.token;
      else if (isLastEvent()) this.#flags |= Observed.done;
    } else if (valueIs('error')) {
      this.#flags |= Observed.error;
    } else if (this.#shape === 'anthropic') {
      if (valueIs('content_block_delta')) this.#flags |= Observed.token;
      else if (valueIs('message_stop')) this.#flags |= Observed.done;
    } else if (this.#shape === 'responses') {
      if (valueEndsWith('.delta')) this.#flags |= Observed.token;
      else if (valueIs('response.failed')) this.#hasFailed = true;
      else if (isLastEvent()) this.#flags |= Observed.done;
    } else if (this.#shape === 'whole') {
      if (valueEndsWith('.delta')) this.#flags |= Observed.token;
      else if (valueIs('transcript.text.done')) this.#flags |= Observed.done;
    }
  }

  /** `message` of message_start (Anthropic) and `response` of response events: id and usage. */
  #walkEnvelope(): void {
    if (!cursor.enterObject()) return;
    while (cursor.nextMember()) {
      const first = cursor.peek();
      if (first === quote && this.id === '' && cursor.keyIs('id')) this.#takeId();
      else if (first === openBrace && cursor.keyIs('usage')) this.#walkUsage();
      else if (first === openBrace && cursor.keyIs('error')) this.#takeError(first);
      else cursor.skip();
    }
  }

  /** `delta` of message_delta (Anthropic); deltas of content blocks say nothing more. */
  #walkMessageDelta(): void {
    if (!cursor.enterObject()) return;
    while (cursor.nextMember()) {
      const isStop = cursor.keyIs('stop_reason') && cursor.peek() === quote;
      if (cursor.skip() && isStop) this.#finish(0, cursor.valueEnd - cursor.valueStart);
    }
  }

  #walkChoices(): void {
    let count = 0;
    if (!cursor.enterArray()) return;
    while (cursor.nextElement()) {
      if (cursor.peek() === openBrace) this.#walkChoice(count);
      else cursor.skip();
      count++;
    }
    if (count === 0) this.#flags |= Observed.usageOnly;
    this.#parts?.choices(count);
  }

  #walkChoice(position: number): void {
    let index = position;
    let reasonLength = 0;
    if (!cursor.enterObject()) return;
    while (cursor.nextMember()) {
      const { keyStart, keyEnd, position } = cursor;
      const first = cursor.peek();
      if (first === openBrace && (cursor.keyIs('delta') || cursor.keyIs('message'))) {
        this.#walkDelta();
      } else if (first === quote && cursor.keyIs('finish_reason')) {
        if (!cursor.skip()) return;
        reasonLength = cursor.valueEnd - cursor.valueStart;
      } else if (cursor.keyIs('index')) {
        if (!cursor.skip()) return;
        const value = jsonNumber(cursor.bytes, cursor.valueStart, cursor.valueEnd);
        if (Number.isInteger(value) && value >= 0) index = value;
      } else if (cursor.keyIs('text')) {
        if (!cursor.skip()) return;
        if (carriesSomething(first)) this.#flags |= Observed.token;
      } else cursor.skip();
      this.#parts?.choice(cursor.bytes, keyStart, keyEnd, position, cursor.position);
    }
    if (cursor.failure === 0) this.#finish(index, reasonLength);
  }

  /** A token is any member but `role` that holds something: text, reasoning, tool calls, audio. */
  #walkDelta(): void {
    if (!cursor.enterObject()) return;
    while (cursor.nextMember()) {
      const isRole = cursor.keyIs('role');
      const first = cursor.peek();
      if (!cursor.skip()) return;
      const carries = carriesSomething(first);
      if (!isRole && carries) this.#flags |= Observed.token;
      const { bytes, keyStart, keyEnd, valueStart, valueEnd } = cursor;
      this.#parts?.delta(bytes, keyStart, keyEnd, valueStart, valueEnd, carries);
    }
  }

  /** `length` is that of the reason with its quotes. Some engines write '' for "not finished". */
  #finish(index: number, length: number): void {
    if (length <= 2) return;
    this.#flags |= Observed.finish;
    this.#stagedIndexes[this.#staged++] = index;
  }

  /** OpenAI, Anthropic and Responses names of the same three numbers. */
  #walkUsage(): void {
    let total = -1;
    if (!cursor.enterObject()) return;
    while (cursor.nextMember()) {
      const first = cursor.peek();
      if (first === openBrace) {
        if (cursor.keyIs('prompt_tokens_details') || cursor.keyIs('input_tokens_details')) {
          this.#walkUsageDetails();
        } else cursor.skip();
        continue;
      }
      const isPrompt = cursor.keyIs('prompt_tokens') || cursor.keyIs('input_tokens');
      const isCompletion = cursor.keyIs('completion_tokens') || cursor.keyIs('output_tokens');
      const isCached = cursor.keyIs('cache_read_input_tokens');
      if (!cursor.skip()) return;
      if (isPrompt) this.#uncached = tokenCount(this.#uncached);
      else if (cursor.keyIs('cache_creation_input_tokens'))
        this.#written = tokenCount(this.#written);
      else if (isCompletion) this.usage.completion = tokenCount(this.usage.completion);
      else if (isCached) this.usage.cached = tokenCount(this.usage.cached);
      else if (cursor.keyIs('total_tokens')) total = tokenCount(total);
    }
    this.#flags |= Observed.usage;
    if (this.#uncached < 0 && this.usage.completion < 0) this.#uncached = total; // as of rerankers
    const isApart = this.#shape === 'anthropic' && this.#uncached >= 0;
    const fromCache = isApart ? Math.max(this.usage.cached, 0) + this.#written : 0;
    this.usage.prompt = this.#uncached + fromCache;
  }

  #walkUsageDetails(): void {
    if (!cursor.enterObject()) return;
    while (cursor.nextMember()) {
      if (cursor.skip() && cursor.keyIs('cached_tokens'))
        this.usage.cached = tokenCount(this.usage.cached);
    }
  }
}

/** Of a stream of responses; stored, one that failed ends as well as any. */
const isLastEvent = (): boolean =>
  valueIs('response.completed') || valueIs('response.incomplete') || valueIs('response.failed');

function valueIs(text: string): boolean {
  return equalsAscii(cursor.bytes, cursor.valueStart + 1, cursor.valueEnd - 1, text);
}

function valueEndsWith(text: string): boolean {
  const start = cursor.valueEnd - 1 - text.length;
  return start > cursor.valueStart && equalsAscii(cursor.bytes, start, cursor.valueEnd - 1, text);
}

/** True when the value just skipped is a non-empty string, array or object. */
function carriesSomething(first: number): boolean {
  if (first === quote) return cursor.valueEnd - cursor.valueStart > 2;
  if (first !== openBracket && first !== openBrace) return false;
  const close = first === openBracket ? closeBracket : closeBrace;
  let p = cursor.valueStart + 1;
  while ((cursor.bytes[p] as number) <= 0x20) p++;
  return cursor.bytes[p] !== close;
}

/** The number just skipped; what is no count leaves the number known before. */
function tokenCount(known: number): number {
  const value = jsonNumber(cursor.bytes, cursor.valueStart, cursor.valueEnd);
  return Number.isSafeInteger(value) && value >= 0 ? value : known;
}
