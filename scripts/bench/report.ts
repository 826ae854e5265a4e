/** The benchmark as a text table, as Markdown, and as ratios to an older run. Pure. */
import { tableLines } from '../../src/lib/text-table.ts';
import { type BenchReport, type Figure, formatNumber, verdict } from './figures.ts';

const columns = ['figure', 'value', 'floor', 'aim', 'verdict', 'rests on'] as const;

export function textReport(report: BenchReport): string {
  const lines = [heading(report), ...smokeNote(report), ''];
  for (const scenario of report.scenarios) {
    lines.push(`${scenario.name}: ${scenario.question}`);
    if (scenario.error !== undefined) lines.push(`  FAILED: ${scenario.error}`);
    lines.push(...tableLines(scenario.figures.map(cells)).map((line) => `  ${line}`));
    lines.push(...scenario.skipped.map((reason) => `  skipped: ${reason}`), '');
  }
  return lines.join('\n');
}

export function markdownReport(report: BenchReport): string {
  const lines = ['# Benchmark', '', heading(report), ...smokeNote(report), ''];
  for (const scenario of report.scenarios) {
    lines.push(`## ${scenario.name}`, '', scenario.question, '');
    if (scenario.error !== undefined) lines.push('```', scenario.error, '```', '');
    if (scenario.figures.length > 0) {
      lines.push(`| ${columns.join(' | ')} |`, `|${'---|'.repeat(columns.length)}`);
      for (const figure of scenario.figures) lines.push(`| ${cells(figure).join(' | ')} |`);
      lines.push('');
    }
    lines.push(...scenario.skipped.map((reason) => `Skipped: ${reason}.\n`));
  }
  return lines.join('\n');
}

/** New value over old value, for each figure both runs have. */
export function compareReports(before: BenchReport, after: BenchReport): string {
  const rows = [['figure', 'before', 'after', 'after / before', '']];
  for (const scenario of after.scenarios) {
    const old = before.scenarios.find(({ name }) => name === scenario.name);
    for (const figure of scenario.figures) {
      const was = old?.figures.find(({ name }) => name === figure.name);
      if (was === undefined) continue;
      rows.push([
        `${scenario.name} / ${figure.name}`,
        withUnit(was, was.value),
        withUnit(figure, figure.value),
        formatNumber(figure.value / was.value),
        change(figure, was),
      ]);
    }
  }
  const warnings: string[] = [];
  if (before.mode !== after.mode) warnings.push('WARNING: a smoke run against a full run');
  if (before.machine.cpu !== after.machine.cpu || before.machine.cores !== after.machine.cores) {
    warnings.push('WARNING: two different machines');
  }
  return `${[...warnings, ...tableLines(rows)].join('\n')}\n`;
}

/** Below this, two runs of one commit differ by as much. */
const noise = 0.05;

function change(figure: Figure, was: Figure): string {
  if (figure.value === was.value) return 'same';
  const ratio = figure.value / was.value;
  if (Math.abs(ratio - 1) < noise) return 'within 5%';
  return ratio > 1 === (figure.better === 'higher') ? 'better' : 'WORSE';
}

function heading(report: BenchReport): string {
  const { machine } = report;
  return (
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGb.toFixed(1)} GB, ${machine.os}; ` +
    `Node ${report.node}; commit ${report.commit}; seed ${report.seed}; ${report.mode}; ` +
    report.startedAt
  );
}

function smokeNote({ mode }: BenchReport): string[] {
  return mode === 'smoke'
    ? ['A smoke run is short and cold: it shows that everything works, not how fast.']
    : [];
}

function cells(figure: Figure): string[] {
  const limit = (value: number | undefined) => (value === undefined ? '' : withUnit(figure, value));
  return [
    figure.name,
    withUnit(figure, figure.value),
    limit(figure.floor),
    limit(figure.aim),
    verdict(figure)?.text ?? '',
    figure.detail ?? '',
  ];
}

function withUnit(figure: Figure, value: number): string {
  return figure.unit === '' ? formatNumber(value) : `${formatNumber(value)} ${figure.unit}`;
}
