/**
 * Whether a prompt and the answer it asks for fit `max_context`. Acceptor threads; never blocks: a request
 * whose tokens are counted waits in its slot, whole, before anybody else hears of it.
 *
 *   bytes         no token has less than one byte of text: a body of no more bytes than there is room for tokens
 *                 fits, and costs two comparisons. Nothing else is sure: a byte may be a token (digits,
 *                 rare scripts) and 128 spaces may be one, so every other request is counted.
 *   count         by the pool (token-counts.ts), to the end of the room at most: what is far too long is
 *                 known as soon as what is a little too long.
 *   estimate      where there is no count (no tokenizer; busy, late, failed): bytes per token as learnt. It may be
 *                 off by two, so only what it has at more than twice the room is refused; the engine has the
 *                 last word on the rest.
 */
import { assert } from '../lib/assert.ts';
import { smallerLimit } from '../lib/smaller-limit.ts';
import { restrictedBit } from '../protocol/request-caps.ts';
import type { RequestFacts as ScanFacts } from '../protocol/request-facts.ts';
import type { ModelRow } from '../shm/threads.ts';
import type { TokenAnswer, TokenWant } from '../shm/token-tasks.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { capsFor } from './key-ring.ts';
import { Phase, type Request } from './request.ts';
import type { TokenCounts } from './token-counts.ts';

/** A template may add as many of its own: a system prompt, how to call tools. Of the public ones 300 at most. */
const templateTokensMax = 512;
const estimateFactor = 2;

export interface Verdicts {
  publish(request: Request, readUs: number): void;
  refuse(request: Request, param: string, message: string): void;
  /** 200 with this body. */
  answer(request: Request, body: Uint8Array): void;
}

/** What is to be decided, while it waits. */
interface Question {
  readonly limit: number;
  /** Tokens of the answer as asked for; 0: not said. */
  readonly maxTokens: number;
  readonly room: number;
  readonly textBytes: number;
  /** Of several prompts the largest counts, and an estimate knows only their sum. */
  readonly isOne: boolean;
}

const answeredPaths: ReadonlyMap<string, TokenWant> = new Map([
  ['/tokenize', 'tokenize'],
  ['/v1/tokenize', 'tokenize'],
  ['/v1/messages/count_tokens', 'count_tokens'],
]);

/** The largest of those that may serve it (`context_window_fallbacks`); 0: one of them has no limit here. */
function contextOf(models: readonly ModelRow[], model: ModelRow): number {
  const own = model.maxContext ?? 0;
  let most = own;
  for (const { model: row } of model.contextFallbacks ?? []) {
    const other = models[row]?.maxContext ?? 0;
    if (other === 0) return 0;
    most = Math.max(most, other);
  }
  return own === 0 ? 0 : most;
}

export class ContextLimit {
  readonly #state: AcceptorState;
  readonly #counts: TokenCounts | undefined;
  readonly #verdicts: Verdicts;
  /** `counts` undefined: no model has a tokenizer. */
  constructor(state: AcceptorState, counts: TokenCounts | undefined, verdicts: Verdicts) {
    this.#state = state;
    this.#counts = counts;
    this.#verdicts = verdicts;
  }

  /** True when the request waits, or is answered: its verdict comes, or came, by itself. */
  takes(request: Request, scan: ScanFacts, readUs: number): boolean {
    const { route, holder, models } = request.facts;
    const model = models.rows[request.model];
    if (model === undefined || route?.model !== 'json') return false;
    const ofTenant = capsFor(holder, request.model).maxContext;
    const limit = smallerLimit(contextOf(models.rows, model), ofTenant);
    if (route.shape === 'whole') {
      const want = model.hasTokenizer === true ? answeredPaths.get(route.path) : undefined;
      return want !== undefined && this.#asksForAnswer(request, want, limit, readUs);
    }
    // An engine that cuts the prompt does so at its own limit, not at that of a tenant.
    if (limit === 0 || (isCutByEngine(scan) && ofTenant === 0)) return false;
    // An answer has a token at least.
    const room = limit - Math.max(scan.maxTokens, 1);
    if (request.bodyLength + templateTokensMax <= room) return false;
    const textBytes = request.bodyLength - scan.mediaBytes;
    if (textBytes + templateTokensMax <= room) return false;
    const { maxTokens, prompts } = scan;
    const question = { limit, maxTokens, room, textBytes, isOne: prompts === 1 };
    if (room > 0 && model.hasTokenizer === true && this.#counts !== undefined) {
      this.#ask(request, 'count', question, (answer) =>
        this.#decide(request, question, answer, readUs),
      );
      return true;
    }
    return !this.#fits(request, question);
  }

  #asksForAnswer(request: Request, want: TokenWant, limit: number, readUs: number): boolean {
    if (this.#counts === undefined) return false;
    const room = Number.POSITIVE_INFINITY;
    const question = { limit, maxTokens: 0, room, textBytes: 0, isOne: true };
    this.#ask(request, want, question, (answer) => {
      if (answer.kind === 'body') this.#verdicts.answer(request, answer.body);
      else this.#verdicts.publish(request, readUs);
    });
    return true;
  }

  /** `counted` is not called for a request that is over. */
  #ask(
    request: Request,
    want: TokenWant,
    { limit, room }: Question,
    counted: (answer: TokenAnswer) => void,
  ): void {
    assert(this.#counts !== undefined);
    const { model, block, bodyStart, bodyLength: length, facts } = request;
    const shape = facts.route?.shape ?? 'whole';
    const of = { want, model, shape, room, maxContext: limit };
    const { slots } = this.#state;
    const tenant = slots.words[slots.row(request.slot) + slots.at.tenant] as number;
    this.#counts.ask(tenant, { ...of, start: block + bodyStart, length }, (answer) => {
      if (request.phase !== Phase.reading) return; // the client has left
      try {
        counted(answer);
      } catch (error) {
        this.#state.failed(error);
        // Not in the turn that reads the body: an answer `busy` comes within it.
        setImmediate(() => request.exchange.cut());
      }
    });
  }

  #decide(request: Request, question: Question, answer: TokenAnswer, readUs: number): void {
    const { room, textBytes } = question;
    if (answer.kind !== 'count') {
      if (this.#fits(request, question)) this.#verdicts.publish(request, readUs);
      return;
    }
    const { tokens, isWhole } = answer;
    if (isWhole && question.isOne)
      this.#state.estimates[request.model]?.learn(textBytes, tokens, 0);
    if (tokens <= room) this.#verdicts.publish(request, readUs);
    else this.#refuse(request, question, tokens, isWhole ? '' : 'at least ');
  }

  /** By estimate; what does not fit is refused. */
  #fits(request: Request, question: Question): boolean {
    const { limit, maxTokens, room, textBytes } = question;
    if (!question.isOne) return true;
    const tokens = this.#state.estimates[request.model]?.promptTokens(textBytes) ?? 0;
    if (maxTokens < limit && tokens <= estimateFactor * room) {
      request.textBytes = textBytes; // its usage will say how good the estimate was
      return true;
    }
    this.#refuse(request, question, tokens, 'about ');
    return false;
  }

  /** In the words of OpenAI, which clients look for. */
  #refuse(request: Request, { limit, maxTokens }: Question, tokens: number, sureness: string) {
    const isCompletion = request.facts.route?.shape === 'openai-completions';
    const place = isCompletion ? 'prompt' : 'messages';
    const asked =
      maxTokens > 0
        ? `you requested ${sureness}${tokens + maxTokens} tokens ` +
          `(${sureness}${tokens} in the ${place}, ${maxTokens} in the completion). ` +
          `Please reduce the length of the ${place} or completion.`
        : `your ${place} resulted in ${sureness}${tokens} tokens. ` +
          `Please reduce the length of the ${place}.`;
    const message = `This model's maximum context length is ${limit} tokens. However, ${asked}`;
    const param = request.facts.route?.shape === 'responses' ? 'input' : place;
    this.#verdicts.refuse(request, param, message);
  }
}

/** The engine cuts such a prompt to size, or it is none of text. */
const isCutByEngine = ({ truncatesPrompt, restricted }: ScanFacts): boolean =>
  truncatesPrompt || (restricted & restrictedBit('prompt_embeds')) !== 0;
