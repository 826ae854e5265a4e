/**
 * Whether the reply of a small model is to be discarded for that of a larger one: by what replicas say of
 * it in fields, never by the words of the reply. Pure; forwarder threads, for requests that are judged.
 *
 * A refusal is `refusal` of a chat message, a part or delta of that type (Responses), `stop_reason` of
 * Messages, or a finish reason. An answer of low confidence has a flag that a serving layer sets, in a
 * header or a field, or logprobs that are low on the mean. Each payload is walked once by the validating
 * cursor, at the depth where a key means something; what is no valid JSON says nothing.
 */
import { equalsAscii, JsonCursor } from './json-cursor.ts';
import { openBrace, openBracket, quote } from './json-skip.ts';
import type { AnswerShape } from './routes.ts';
import { jsonNumber, latin1Of } from './text.ts';

export interface ReplyRules {
  /** The reply is a refusal in the words of its protocol. */
  readonly refusal: boolean;
  /** Finish reasons that count as one. */
  readonly finishReasons: readonly string[];
  /** Names, in lower case and as in the JSON, of what is set on an answer of low confidence; '': none. */
  readonly header: string;
  readonly field: string;
  /** Of the tokens of a whole answer; absent: whatever it is. */
  readonly meanLogprobBelow?: number | undefined;
}

export const Judgement = { passes: 0, refused: 1, unsure: 2 } as const;
export type Judgement = (typeof Judgement)[keyof typeof Judgement];

/** What OpenAI and Azure, and Anthropic, write where a model or a filter refused. */
const refusalReasons = ['content_filter', 'refusal'];
/** What a flag has that is not set. */
const unset: ReadonlySet<string> = new Set(['', 'false', '0', 'no', 'null']);
const flagBytesMax = 8;
/** -9999 stands for "very unlikely" (OpenAI, vLLM): one such token is not to speak for all the others. */
const logprobMin = -20;

/** As of the completion observer. */
const depthMax = 64;
const keysMax = 100_000;

const cursor = new JsonCursor();

export class ReplyJudge {
  readonly #rules: ReplyRules;
  readonly #shape: AnswerShape;
  readonly #reasons: readonly string[];
  /** Of the payload at hand. */
  #isRefused = false;
  #isUnsure = false;
  #logprobs = 0;
  #logprobSum = 0;

  constructor(rules: ReplyRules, shape: AnswerShape) {
    this.#rules = rules;
    this.#shape = shape;
    this.#reasons = rules.refusal
      ? [...refusalReasons, ...rules.finishReasons]
      : rules.finishReasons;
  }

  /** Name of the header that is looked at; '' for none. */
  get header(): string {
    return this.#rules.header;
  }

  ofHeader(value: string): Judgement {
    return isSet(value) ? Judgement.unsure : Judgement.passes;
  }

  /** One event of a stream whose content has not begun before it. */
  ofEvent(data: Uint8Array, start: number, end: number): Judgement {
    return this.#judge(data, start, end);
  }

  /** A whole answer. */
  ofBody(body: Uint8Array): Judgement {
    const judgement = this.#judge(body, 0, body.length);
    const limit = this.#rules.meanLogprobBelow;
    if (judgement !== Judgement.passes || limit === undefined || this.#logprobs === 0) {
      return judgement;
    }
    return this.#logprobSum / this.#logprobs < limit ? Judgement.unsure : Judgement.passes;
  }

  #judge(bytes: Uint8Array, start: number, end: number): Judgement {
    this.#isRefused = this.#isUnsure = false;
    this.#logprobs = this.#logprobSum = 0;
    cursor.reset(bytes, start, end, depthMax, keysMax);
    this.#walkTop(true);
    if (!cursor.finished()) {
      this.#logprobs = 0;
      return Judgement.passes;
    }
    if (this.#isRefused) return Judgement.refused;
    return this.#isUnsure ? Judgement.unsure : Judgement.passes;
  }

  /** An answer, an event, or the response within one, which is no place of `field`. */
  #walkTop(isOutermost: boolean): void {
    if (!cursor.enterObject()) return;
    const { field } = this.#rules;
    while (cursor.nextMember()) {
      if (isOutermost && field !== '' && cursor.keyIs(field)) this.#takeFlag();
      else if (this.#shape === 'anthropic') this.#takeOfMessage();
      else if (this.#shape === 'responses') this.#takeOfResponse(isOutermost);
      else if (cursor.keyIs('choices')) this.#each(openBrace, () => this.#walkChoice());
      else cursor.skip();
    }
  }

  #takeFlag(): void {
    if (!cursor.skip()) return;
    const { bytes, valueStart, valueEnd } = cursor;
    const isText = bytes[valueStart] === quote;
    const [from, to] = isText ? [valueStart + 1, valueEnd - 1] : [valueStart, valueEnd];
    if (to - from > flagBytesMax || isSet(latin1Of(bytes, from, to))) this.#isUnsure = true;
  }

  /** `stop_reason` of a message, and of `delta` in message_delta. */
  #takeOfMessage(): void {
    if (cursor.keyIs('stop_reason')) this.#takeReason();
    else if (cursor.keyIs('delta') && cursor.peek() === openBrace) {
      this.#members(() => {
        if (cursor.keyIs('stop_reason')) this.#takeReason();
        else cursor.skip();
      });
    } else cursor.skip();
  }

  #takeOfResponse(isOutermost: boolean): void {
    const first = cursor.peek();
    if (cursor.keyIs('output')) {
      this.#each(openBrace, () =>
        this.#members(() => {
          if (cursor.keyIs('content')) this.#each(openBrace, () => this.#walkPart());
          else cursor.skip();
        }),
      );
    } else if (first === openBrace && cursor.keyIs('incomplete_details')) {
      this.#members(() => {
        if (cursor.keyIs('reason')) this.#takeReason();
        else cursor.skip();
      });
    } else if (isOutermost && first === openBrace && cursor.keyIs('response')) this.#walkTop(false);
    else if (isOutermost && cursor.keyIs('type')) this.#takeRefusal('response.refusal.delta');
    else cursor.skip();
  }

  #walkPart(): void {
    this.#members(() => {
      if (cursor.keyIs('type')) this.#takeRefusal('refusal');
      else if (cursor.keyIs('logprobs')) this.#walkLogprobs();
      else cursor.skip();
    });
  }

  /** A type that says so. */
  #takeRefusal(type: string): void {
    const isText = cursor.peek() === quote;
    if (cursor.skip() && isText && this.#rules.refusal && valueIs(type)) this.#isRefused = true;
  }

  #walkChoice(): void {
    this.#members(() => {
      const isObject = cursor.peek() === openBrace;
      if (cursor.keyIs('finish_reason')) this.#takeReason();
      else if (isObject && (cursor.keyIs('message') || cursor.keyIs('delta'))) this.#walkMessage();
      else if (isObject && cursor.keyIs('logprobs')) {
        this.#members(() => {
          if (cursor.keyIs('content')) this.#walkLogprobs();
          else if (cursor.keyIs('token_logprobs')) this.#walkTokenLogprobs();
          else cursor.skip();
        });
      } else cursor.skip();
    });
  }

  #walkMessage(): void {
    this.#members(() => {
      const isRefusal = cursor.keyIs('refusal') && cursor.peek() === quote;
      if (!cursor.skip() || !isRefusal || !this.#rules.refusal) return;
      if (cursor.valueEnd - cursor.valueStart > 2) this.#isRefused = true;
    });
  }

  /** Of chats and responses: `[{"token":…,"logprob":-0.1,…}]`. */
  #walkLogprobs(): void {
    this.#each(openBrace, () =>
      this.#members(() => {
        const isLogprob = cursor.keyIs('logprob');
        if (cursor.skip() && isLogprob) this.#addLogprob();
      }),
    );
  }

  /** Of completions: `[null,-0.1,…]`, null where an echoed prompt begins. */
  #walkTokenLogprobs(): void {
    if (cursor.peek() !== openBracket) {
      cursor.skip();
      return;
    }
    if (!cursor.enterArray()) return;
    while (cursor.nextElement()) if (cursor.skip()) this.#addLogprob();
  }

  #addLogprob(): void {
    const logprob = jsonNumber(cursor.bytes, cursor.valueStart, cursor.valueEnd);
    if (!Number.isFinite(logprob)) return;
    this.#logprobs++;
    this.#logprobSum += Math.max(logprob, logprobMin);
  }

  #takeReason(): void {
    const isText = cursor.peek() === quote;
    if (cursor.skip() && isText && this.#reasons.some(valueIs)) this.#isRefused = true;
  }

  /** The members of the object at the cursor; `take` is to take or skip the value of each. */
  #members(take: () => void): void {
    if (!cursor.enterObject()) return;
    while (cursor.nextMember()) take();
  }

  /** The elements of the list at the cursor that begin so; what is no list is skipped. */
  #each(open: number, take: () => void): void {
    if (cursor.peek() !== openBracket) {
      cursor.skip();
      return;
    }
    if (!cursor.enterArray()) return;
    while (cursor.nextElement()) {
      if (cursor.peek() === open) take();
      else cursor.skip();
    }
  }
}

const isSet = (value: string): boolean => !unset.has(value.trim().toLowerCase());

const valueIs = (text: string): boolean =>
  equalsAscii(cursor.bytes, cursor.valueStart + 1, cursor.valueEnd - 1, text);
