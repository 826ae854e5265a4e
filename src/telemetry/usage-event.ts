/** A line of a usage file, read back. Pure. */

export interface UsageEvent {
  /** The same wherever and however often the event is found. */
  readonly id: string;
  readonly time: string;
  readonly outcome: string;
  readonly tenant: string | null;
  readonly input_tokens: number | null;
  readonly cached_tokens: number | null;
  readonly output_tokens: number | null;
  /** Some of its tokens are no count of a replica; absent in older files. */
  readonly estimated?: boolean;
  /** Absent in files of before there were prices. */
  readonly cost?: number | null;
  readonly [field: string]: unknown;
}

/** Undefined: the line is no event, as one that was cut in two. */
export function parseUsageEvent(line: string): UsageEvent | undefined {
  try {
    const event = JSON.parse(line) as Partial<UsageEvent> | null;
    const isEvent = typeof event?.id === 'string' && typeof event.time === 'string';
    return isEvent ? (event as UsageEvent) : undefined;
  } catch {
    return undefined;
  }
}
