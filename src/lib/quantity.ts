/**
 * Durations and sizes as people write them: `30s` is 30000 milliseconds, `64KiB` is 65536 bytes.
 *
 * Pure; any thread. A bare number is refused: nobody can tell 30 ms from 30 s by looking.
 */
const millisecondsPer: Readonly<Record<string, number>> = {
  us: 0.001,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};
const bytesPer: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
};

export const durationPattern = /^(\d{1,12}(?:\.\d{1,6})?)(us|ms|s|m|h)$/;
export const sizePattern = /^(\d{1,12}(?:\.\d{1,6})?)(B|KiB|MiB|GiB)$/;

/** Milliseconds, or `undefined` when the text is no duration. */
export function parseDuration(text: string): number | undefined {
  return parse(text, durationPattern, millisecondsPer);
}

/** Bytes, or `undefined` when the text is no size or no whole number of bytes. */
export function parseSize(text: string): number | undefined {
  const bytes = parse(text, sizePattern, bytesPer);
  return bytes !== undefined && Number.isInteger(bytes) ? bytes : undefined;
}

/** The shortest exact text of a duration: 90000 is `90s`, 120000 is `2m`. */
export function formatDuration(milliseconds: number): string {
  return format(milliseconds, millisecondsPer);
}

/** The shortest exact text of a size: 65536 is `64KiB`. */
export function formatSize(bytes: number): string {
  return format(bytes, bytesPer);
}

function parse(
  text: string,
  pattern: RegExp,
  units: Readonly<Record<string, number>>,
): number | undefined {
  const match = pattern.exec(text);
  const unit = units[match?.[2] ?? ''];
  if (match === null || unit === undefined) return undefined;
  return rounded(Number(match[1]) * unit);
}

function format(value: number, units: Readonly<Record<string, number>>): string {
  const entries = Object.entries(units).reverse();
  for (const [name, unit] of entries) {
    const count = Math.round(value / unit);
    if (count > 0 && rounded(count * unit) === value) return `${count}${name}`;
  }
  const [name = '', unit = 1] = entries.at(-1) ?? [];
  return `${rounded(value / unit)}${name}`;
}

/** Six digits: 4.35 * 1000 must not become 4350.000000000001. */
function rounded(value: number): number {
  return Math.round(value * 1e6) / 1e6;
}
