/**
 * The parts of one streamed chunk of a chat or a completion that continuing it takes, as positions.
 * Pure; forwarder threads, for models with `continuation`; one instance, read again for each chunk.
 *
 * The payload has been validated by the completion observer.
 */
import type { Edit } from './byte-edits.ts';
import { JsonCursor } from './json-cursor.ts';
import { comma, openBrace, openBracket, quote } from './json-skip.ts';

const depthMax = 64;
const keysMax = 100_000;
const space = 0x20;
const empty = new Uint8Array(0);

/** A value, and the opening quote of its key; `end` 0: it is not there. */
export interface Member {
  at: number;
  start: number;
  end: number;
}

const none = (): Member => ({ at: 0, start: 0, end: 0 });

export class StreamChunk {
  readonly id = none();
  readonly created = none();
  readonly model = none();
  readonly object = none();
  readonly usage = none();
  readonly role = none();
  /** `delta.content` or `text`, a string with its quotes. */
  readonly content = none();
  /** Ids of the tokens of this chunk, and of the prompt, of the chunk or its choice: a list, or null. */
  readonly tokenIds = none();
  readonly promptIds = none();
  readonly choicePromptIds = none();
  /** The content is the `text` of a completion. */
  isCompletion = false;
  /** Carries reasoning. */
  reasons = false;
  /** Carries nothing but text, reasoning and a finish reason of the one choice. */
  isPlain = true;
  readonly #cursor = new JsonCursor();
  readonly #members = [
    ...[this.id, this.created, this.model, this.object, this.usage, this.role, this.content],
    ...[this.tokenIds, this.promptIds, this.choicePromptIds],
  ];

  read(bytes: Uint8Array, start: number, end: number): void {
    const cursor = this.#cursor;
    for (const member of this.#members) member.end = 0;
    this.reasons = this.isCompletion = false;
    this.isPlain = true;
    cursor.reset(bytes, start, end, depthMax, keysMax);
    cursor.enterObject();
    while (cursor.nextMember()) {
      if (cursor.keyIs('choices') && cursor.peek() === openBracket) this.#walkChoices();
      else if (cursor.keyIs('id')) this.#take(this.id);
      else if (cursor.keyIs('created')) this.#take(this.created);
      else if (cursor.keyIs('model')) this.#take(this.model);
      else if (cursor.keyIs('object')) this.#take(this.object);
      else if (cursor.keyIs('usage')) this.#take(this.usage);
      else if (cursor.keyIs('prompt_token_ids')) this.#take(this.promptIds);
      else cursor.skip();
    }
  }

  /** Brings the ids of the prompt. */
  namesPrompt(data: Uint8Array): boolean {
    return isFullList(data, this.promptIds) || isFullList(data, this.choicePromptIds);
  }

  #take(member: Member): void {
    const cursor = this.#cursor;
    member.at = cursor.keyStart - 1;
    if (!cursor.skip()) return;
    member.start = cursor.valueStart;
    member.end = cursor.valueEnd;
  }

  #walkChoices(): void {
    const cursor = this.#cursor;
    let count = 0;
    cursor.enterArray();
    while (cursor.nextElement()) {
      if (count++ === 0 && cursor.peek() === openBrace) this.#walkChoice();
      else cursor.skip();
    }
    if (count > 1) this.isPlain = false;
  }

  #walkChoice(): void {
    const cursor = this.#cursor;
    cursor.enterObject();
    while (cursor.nextMember()) {
      const first = cursor.peek();
      if (cursor.keyIs('delta') && first === openBrace) this.#walkDelta();
      else if (cursor.keyIs('text') && first === quote) {
        this.#take(this.content);
        this.isCompletion = true;
      } else if (cursor.keyIs('token_ids')) this.#take(this.tokenIds);
      else if (cursor.keyIs('prompt_token_ids')) this.#take(this.choicePromptIds);
      else if (cursor.keyIs('logprobs')) {
        if (first === openBrace) this.isPlain = false;
        cursor.skip();
      } else if (cursor.keyIs('index')) {
        cursor.skip();
        if (cursor.bytes[cursor.valueStart] !== 0x30) this.isPlain = false;
      } else cursor.skip();
    }
  }

  #walkDelta(): void {
    const cursor = this.#cursor;
    cursor.enterObject();
    while (cursor.nextMember()) {
      const first = cursor.peek();
      if (cursor.keyIs('content') && first === quote) this.#take(this.content);
      else if (cursor.keyIs('role')) this.#take(this.role);
      else if (cursor.keyIs('reasoning_content') || cursor.keyIs('reasoning')) {
        cursor.skip();
        if (this.#carriesSomething(first)) this.reasons = true;
      } else {
        cursor.skip();
        if (this.#carriesSomething(first)) this.isPlain = false;
      }
    }
  }

  /** The value just skipped is more than `""`, `[]` or `{}`. */
  #carriesSomething(first: number): boolean {
    if (first !== quote && first !== openBracket && first !== openBrace) return false;
    return this.#cursor.valueEnd - this.#cursor.valueStart > 2;
  }
}

const isFullList = (data: Uint8Array, { start, end }: Member): boolean =>
  end > 0 && data[start] === openBracket && end - start > 2;

/** Takes members out of their objects, each with one of the commas around it. */
export function without(bytes: Uint8Array, members: readonly Member[]): Edit[] {
  const edits: Edit[] = [];
  const sorted = members.filter(({ end }) => end > 0).sort((a, b) => a.at - b.at);
  for (let i = 0; i < sorted.length; ) {
    const { at } = sorted[i++] as Member;
    let { end } = sorted[i - 1] as Member;
    // Neighbours go as one: there may be only one comma for two of them.
    for (; sorted[i]?.at === behindComma(bytes, end); i++) end = (sorted[i] as Member).end;
    edits.push(withoutRange(bytes, at, end));
  }
  return edits;
}

function withoutRange(bytes: Uint8Array, at: number, end: number): Edit {
  const after = behindSpace(bytes, end);
  if (bytes[after] === comma) return { start: at, end: after + 1, bytes: empty };
  let before = at - 1;
  while ((bytes[before] as number) <= space) before--;
  return { start: bytes[before] === comma ? before : at, end, bytes: empty };
}

/** Where the member behind the one that ends at `end` begins; -1: it is the last. */
function behindComma(bytes: Uint8Array, end: number): number {
  const after = behindSpace(bytes, end);
  return bytes[after] === comma ? behindSpace(bytes, after + 1) : -1;
}

function behindSpace(bytes: Uint8Array, from: number): number {
  let p = from;
  while ((bytes[p] as number) <= space) p++;
  return p;
}
