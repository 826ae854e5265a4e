/** A part of the live page: a section, and the targets it answers. Pure. */
import { numberText } from '../../src/simulation/summary.ts';
import type { Section } from '../evaluate/sections.ts';
import type { Target } from '../evaluate/targets.ts';
import type { Tails } from './measures.ts';

export interface LivePart {
  readonly section: Section;
  readonly targets: readonly Target[];
}

export const tailsHeader: readonly string[] = [
  ...['', 'sent', 'served', 'refused', 'lost', 'queue wait p99, ms', 'TTFT p99', 'answer p50'],
  ...['answer p99', 'refusal p99'],
];

export function tailsRow(name: string, tails: Tails): string[] {
  const { sent, served, refused, lost, queueP99, ttftP99, wholeP50, wholeP99, refusalP99 } = tails;
  const times = [queueP99, ttftP99, wholeP50, wholeP99].map((value) => numberText(value, 0));
  const refusal = refused === 0 ? '' : numberText(refusalP99, 1);
  return [name, ...[sent, served, refused, lost].map(String), ...times, refusal];
}

export function ms(value: number): string {
  return `${numberText(value, value < 10 ? 1 : 0)} ms`;
}
