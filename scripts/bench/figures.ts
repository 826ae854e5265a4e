/** A figure of the benchmark, its floor and aim (DESIGN.md 8), and what became of them. Pure. */

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly better: 'lower' | 'higher';
  readonly floor?: number;
  readonly aim?: number;
  /** What the figure rests on: bounds, both sides of a ratio. */
  readonly detail?: string;
}

export interface ScenarioResult {
  readonly name: string;
  readonly question: string;
  readonly figures: readonly Figure[];
  /** Named reasons for everything left out. */
  readonly skipped: readonly string[];
  /** Measurements behind the figures, as they came. */
  readonly data: unknown;
  /** Set when the scenario broke; its figures are missing then. */
  readonly error?: string;
}

export interface BenchReport {
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryGb: number;
    readonly os: string;
  };
  readonly node: string;
  readonly commit: string;
  readonly seed: number;
  readonly mode: 'smoke' | 'full';
  readonly startedAt: string;
  readonly scenarios: readonly ScenarioResult[];
}

export type Verdict = { readonly met: boolean; readonly text: string };

/** Met, or missed and by which factor; undefined when the figure has no floor. */
export function verdict(figure: Figure): Verdict | undefined {
  const { floor, aim } = figure;
  if (floor === undefined) return undefined;
  if (aim !== undefined && reaches(figure, aim)) return { met: true, text: 'aim met' };
  if (!reaches(figure, floor)) {
    return { met: false, text: `floor MISSED by ${factor(figure, floor)}` };
  }
  const rest = aim === undefined ? '' : `, ${factor(figure, aim)} from the aim`;
  return { met: true, text: `floor met${rest}` };
}

function reaches(figure: Figure, limit: number): boolean {
  return figure.better === 'lower' ? figure.value <= limit : figure.value >= limit;
}

function factor(figure: Figure, limit: number): string {
  const ratio = figure.better === 'lower' ? figure.value / limit : limit / figure.value;
  // From or to nothing there is no factor.
  return Number.isFinite(ratio) ? `${ratio.toFixed(2)}x` : formatNumber(figure.value - limit);
}

export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size === 0 || (Number.isInteger(value) && size < 1e9)) return String(value);
  if (size >= 100) return value.toFixed(0);
  return size >= 10 ? value.toFixed(1) : value.toPrecision(3);
}

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('a median needs values');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}
