/**
 * Log fields: the allow-list. What is not a field here cannot be logged, so no prompt, no answer and no
 * key can get into a log by way of an object that happens to hold one.
 *
 * Pure; any thread. Every text is cut to a length, and bytes that could drive a terminal or start
 * a line of their own are written as \u escapes.
 */

export interface LogFields {
  readonly req_id?: string | undefined;
  readonly trace_id?: string | undefined;
  readonly tenant?: string | undefined;
  /** The id of the key, never the key. */
  readonly key_id?: string | undefined;
  readonly model?: string | undefined;
  readonly replica?: string | undefined;
  readonly status?: number | undefined;
  readonly attempts?: number | undefined;
  readonly ttft_ms?: number | undefined;
  readonly e2e_ms?: number | undefined;
  readonly in_tok?: number | undefined;
  readonly out_tok?: number | undefined;
  readonly count?: number | undefined;
  /** Of the audit log. */
  readonly who?: string | undefined;
  readonly remote?: string | undefined;
  readonly action?: string | undefined;
  readonly target?: string | undefined;
  readonly result?: string | undefined;
  /** Envoy's response flag of the error. */
  readonly flag?: string | undefined;
  readonly err?: unknown;
}

/** Characters kept of each text; all texts of a line together stay below one pipe write. */
const textMax = {
  req_id: 128,
  trace_id: 64,
  tenant: 64,
  key_id: 64,
  model: 128,
  replica: 128,
  flag: 8,
  who: 64,
  remote: 64,
  action: 32,
  target: 132,
  result: 16,
} as const;
const numberFields = [
  'status',
  'attempts',
  'ttft_ms',
  'e2e_ms',
  'in_tok',
  'out_tok',
  'count',
] as const;
const textFields = Object.keys(textMax) as readonly (keyof typeof textMax)[];
const messageMax = 512;
const errorMax = 512;
const stackFramesMax = 4;
const frameMax = 160;

export const logFieldNames: readonly string[] = [
  ...['ts', 'level', 'thread', 'audit', 'msg'],
  ...textFields,
  ...numberFields,
  'err',
];

/** A record of the allowed fields alone, each of its own type. */
export function pickFields(fields: LogFields): Record<string, string | number> {
  const picked: Record<string, string | number> = {};
  for (const name of textFields) {
    const value = fields[name];
    if (typeof value === 'string') picked[name] = clip(value, textMax[name]);
  }
  for (const name of numberFields) {
    const value = fields[name];
    if (typeof value === 'number' && Number.isFinite(value)) picked[name] = roundToMicros(value);
  }
  if (fields.err !== undefined) picked.err = errorText(fields.err);
  return picked;
}

export function messageText(message: string): string {
  return clip(message, messageMax);
}

/**
 * An error as one line: name, code, message, and where it was thrown. A SyntaxError loses its
 * message, because JSON.parse quotes the text it read, which may be a prompt.
 */
export function errorText(error: unknown): string {
  if (!(error instanceof Error))
    return typeof error === 'string' ? clip(error, errorMax) : 'unknown';
  const code = 'code' in error && typeof error.code === 'string' ? ` ${error.code}` : '';
  const message = error instanceof SyntaxError ? '' : `: ${error.message}`;
  const frames = framesOf(error);
  return [clip(`${error.name}${code}${message}`, errorMax), ...frames].join(' | ');
}

/** The frames alone: the stack begins with the message, which may have lines that look like frames. */
function framesOf(error: Error): string[] {
  const { stack, message } = error;
  const messageAt = typeof stack === 'string' ? stack.indexOf(message) : -1;
  if (typeof stack !== 'string' || messageAt < 0) return [];
  return stack
    .slice(messageAt + message.length)
    .split('\n')
    .filter((line) => /^ +at /.test(line))
    .slice(0, stackFramesMax)
    .map((line) => clip(line.trim(), frameMax));
}

/**
 * C0 and C1 controls, delete, and the separators and direction marks of Unicode. JSON escapes only the
 * first, and a terminal obeys them all.
 */
const unsafe = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

function clip(text: string, max: number): string {
  const cut = text.length > max ? `${text.slice(0, max)}…` : text;
  return cut.replace(unsafe, escapeUnit);
}

function escapeUnit(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

function roundToMicros(value: number): number {
  return Math.round(value * 1000) / 1000;
}
