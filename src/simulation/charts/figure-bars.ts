/** A bar chart of one figure over the rows of a table; our policies and peers' rules in two colours. Pure. */
import { policyNames } from '../../dispatch/policies/registry.ts';
import { figures, type Row } from '../figures.ts';
import { statOf } from '../summary.ts';
import { barChart } from './bar-chart.ts';

export function figureBars(title: string, key: string, rows: readonly Row[]): string {
  const unit = figures.find((figure) => figure.key === key)?.title ?? key;
  const bars = rows.map(({ name, stats }) => ({
    name,
    stat: stats.get(key) ?? statOf([]),
    group: policyNames.includes(name.split(',')[0] ?? '') ? 0 : 1,
  }));
  return barChart(title, unit, bars);
}
