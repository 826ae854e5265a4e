/**
 * The parts of one streamed chunk of a chat or a completion that continuing it takes, as positions.
 * Pure; forwarder threads, for models with `continuation`; one instance, filled again for each chunk.
 *
 * The completion observer fills it on the one walk that it makes over a payload: what is here is of no
 * use where that walk says malformed.
 */
import type { Edit } from './byte-edits.ts';
import { equalsAscii } from './json-cursor.ts';
import { comma, openBrace, openBracket, quote } from './json-skip.ts';

const space = 0x20;
const zero = 0x30;
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
  /** It has `choices`, some or none. */
  hasChoices = false;
  /** Carries nothing but text, reasoning and a finish reason of the one choice. */
  isPlain = true;
  readonly #members = [
    ...[this.id, this.created, this.model, this.object, this.usage, this.role, this.content],
    ...[this.tokenIds, this.promptIds, this.choicePromptIds],
  ];

  clear(): void {
    for (const member of this.#members) member.end = 0;
    this.reasons = this.isCompletion = this.hasChoices = false;
    this.isPlain = true;
  }

  /** Takes note of a member of the chunk: its key without quotes, its value. */
  top(bytes: Uint8Array, keyStart: number, keyEnd: number, start: number, end: number): void {
    const member = this.#topMember(bytes, keyStart, keyEnd);
    if (member !== undefined) take(member, keyStart, start, end);
  }

  /** Takes note of how many choices there are. */
  choices(count: number): void {
    this.hasChoices = true;
    if (count > 1) this.isPlain = false;
  }

  /** Takes note of a member of a choice. */
  choice(bytes: Uint8Array, keyStart: number, keyEnd: number, start: number, end: number): void {
    const first = bytes[start] as number;
    switch (keyEnd - keyStart) {
      case 4:
        if (first !== quote || !equalsAscii(bytes, keyStart, keyEnd, 'text')) return;
        take(this.content, keyStart, start, end);
        this.isCompletion = true;
        return;
      case 5:
        if (first !== zero && equalsAscii(bytes, keyStart, keyEnd, 'index')) this.isPlain = false;
        return;
      case 8:
        if (first !== openBrace || !equalsAscii(bytes, keyStart, keyEnd, 'logprobs')) return;
        this.isPlain = false;
        return;
      case 9:
        if (equalsAscii(bytes, keyStart, keyEnd, 'token_ids')) {
          take(this.tokenIds, keyStart, start, end);
        }
        return;
      case 16:
        if (equalsAscii(bytes, keyStart, keyEnd, 'prompt_token_ids')) {
          take(this.choicePromptIds, keyStart, start, end);
        }
    }
  }

  /** Takes note of a member of a delta, which `carries` something or is empty. */
  delta(
    bytes: Uint8Array,
    keyStart: number,
    keyEnd: number,
    start: number,
    end: number,
    carries: boolean,
  ): void {
    const isKey = (name: string): boolean => equalsAscii(bytes, keyStart, keyEnd, name);
    if (bytes[start] === quote && isKey('content')) take(this.content, keyStart, start, end);
    else if (isKey('role')) take(this.role, keyStart, start, end);
    else if (!carries) return;
    else if (isKey('reasoning_content') || isKey('reasoning')) this.reasons = true;
    else this.isPlain = false;
  }

  /** Brings the ids of the prompt. */
  namesPrompt(data: Uint8Array): boolean {
    return isFullList(data, this.promptIds) || isFullList(data, this.choicePromptIds);
  }

  #topMember(bytes: Uint8Array, keyStart: number, keyEnd: number): Member | undefined {
    const isKey = (name: string): boolean => equalsAscii(bytes, keyStart, keyEnd, name);
    switch (keyEnd - keyStart) {
      case 2:
        return isKey('id') ? this.id : undefined;
      case 5:
        if (isKey('usage')) return this.usage;
        return isKey('model') ? this.model : undefined;
      case 6:
        return isKey('object') ? this.object : undefined;
      case 7:
        return isKey('created') ? this.created : undefined;
      case 16:
        return isKey('prompt_token_ids') ? this.promptIds : undefined;
      default:
        return undefined;
    }
  }
}

function take(member: Member, keyStart: number, start: number, end: number): void {
  member.at = keyStart - 1;
  member.start = start;
  member.end = end;
}

const isFullList = (data: Uint8Array, { start, end }: Member): boolean =>
  end > 0 && data[start] === openBracket && end - start > 2;

/** Takes members out of their objects, each with one of the commas around it. */
export function without(bytes: Uint8Array, members: readonly Member[]): Edit[] {
  const [only] = members;
  if (members.length === 1 && only !== undefined) {
    return only.end > 0 ? [withoutRange(bytes, only.at, only.end)] : [];
  }
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
