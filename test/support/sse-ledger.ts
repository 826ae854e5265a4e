/**
 * Reads what a client got from a stream and checks it against what the replica must have said:
 * tokens are an exact prefix, nothing twice, nothing missing, nothing of another request.
 */
import { createParser } from 'eventsource-parser';
import type { TokenSeries } from '../../src/replica/tokens.ts';
import { tokenText } from '../../src/replica/tokens.ts';

export interface SseLedger {
  /** Text of the first choice, in all four APIs. */
  readonly text: string;
  /** Whole tokens of the text, in the order they came. */
  readonly tokens: number;
  /** The text is exactly tokens 0 to `tokens` of the series. */
  readonly exact: boolean;
  /** Tokens that came again, that were skipped, that carry another nonce. */
  readonly duplicates: number;
  readonly gaps: number;
  readonly foreign: number;
  readonly sawDone: boolean;
  readonly finishReason: string | undefined;
  /** Error events, as JSON values. */
  readonly errors: readonly unknown[];
  /** Events whose data is neither JSON nor `[DONE]`. */
  readonly malformed: readonly string[];
  readonly usage: unknown;
  readonly ids: ReadonlySet<string>;
  /** Bytes behind the last whole event. */
  readonly unfinished: boolean;
}

interface Delta {
  readonly content?: string | null;
  readonly text?: string;
}

interface StreamEvent {
  readonly id?: string;
  readonly type?: string;
  readonly error?: unknown;
  readonly usage?: unknown;
  readonly response?: { readonly usage?: unknown; readonly status?: string };
  readonly delta?: Delta | string;
  readonly choices?: readonly {
    readonly index: number;
    readonly text?: string;
    readonly delta?: Delta;
    readonly finish_reason?: string | null;
  }[];
}

const TOKEN = / ([A-Za-z0-9_-]+):(\d+):[0-9a-f]{8}[^ ]*/g;
const LAST_EVENTS = new Set(['message_stop', 'response.completed', 'response.incomplete']);

/** The ledger of a stream body; `start` is the first token expected. */
export function readSse(body: Uint8Array, series: TokenSeries, start = 0): SseLedger {
  const source = new TextDecoder().decode(body);
  const facts = {
    text: '',
    sawDone: false,
    finishReason: undefined as string | undefined,
    errors: [] as unknown[],
    malformed: [] as string[],
    usage: undefined as unknown,
    ids: new Set<string>(),
  };
  const parser = createParser({
    onEvent: ({ data }) => {
      if (data === '[DONE]') {
        facts.sawDone = true;
        return;
      }
      const event = parse(data);
      if (event === undefined) facts.malformed.push(data);
      else read(event, facts);
    },
  });
  parser.feed(source);
  const unfinished = source !== '' && !/(?:\n\n|\r\r|\r\n\r\n)$/.test(source);
  return { ...facts, ...checkTokens(facts.text, series, start), unfinished };
}

/** Checks text against the tokens of a series from `start` on. */
export function checkTokens(
  text: string,
  series: TokenSeries,
  start = 0,
): Pick<SseLedger, 'tokens' | 'exact' | 'duplicates' | 'gaps' | 'foreign'> {
  let expected = '';
  let tokens = 0;
  let duplicates = 0;
  let gaps = 0;
  let foreign = 0;
  let next = start;
  for (const [, nonce, position] of text.matchAll(TOKEN)) {
    expected += tokenText(series, start + tokens);
    tokens++;
    const k = Number(position);
    if (nonce !== series.nonce) foreign++;
    else if (k < next) duplicates++;
    else {
      gaps += k - next;
      next = k + 1;
    }
  }
  return { tokens, exact: text === expected, duplicates, gaps, foreign };
}

interface Facts {
  text: string;
  sawDone: boolean;
  finishReason: string | undefined;
  errors: unknown[];
  usage: unknown;
  ids: Set<string>;
}

function read(event: StreamEvent, facts: Facts): void {
  if (event.id !== undefined) facts.ids.add(event.id);
  if (event.error !== undefined) facts.errors.push(event.error);
  const usage = event.usage ?? event.response?.usage;
  if (usage !== undefined && usage !== null) facts.usage = usage;
  if (LAST_EVENTS.has(event.type ?? '')) facts.sawDone = true;
  if (typeof event.delta === 'string') facts.text += event.delta;
  else facts.text += event.delta?.text ?? '';
  for (const choice of event.choices ?? []) {
    if (choice.index !== 0) continue;
    facts.text += choice.delta?.content ?? choice.text ?? '';
    facts.finishReason = choice.finish_reason ?? facts.finishReason;
  }
}

function parse(data: string): StreamEvent | undefined {
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === 'object' && value !== null ? (value as StreamEvent) : undefined;
  } catch {
    return undefined;
  }
}
