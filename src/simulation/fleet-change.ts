/**
 * What a change of the fleet did, from the records of a run (ALGORITHMS.md 6, figures 8 and 9). Pure.
 *
 * Shares are of the dispatches, over what an even spread would give the row: 1 is fair. Recovery is the
 * time from the last change until the 90th percentile of the times to first token, of requests sent
 * in windows of 30 s, is within 10 % of what it was before the first one.
 */
import type { RunResult } from './driver.ts';
import type { FleetEvent } from './fleet-events.ts';
import { latencyOf } from './measures.ts';
import { Outcome } from './records.ts';
import type { Workload } from './workload.ts';

const windowUs = 30_000_000;
const stampedeUs = 10_000_000;
const recovered = 1.1;

export interface FleetChange {
  /** Of the changed row: after the last change, and in the first 10 s of that. */
  readonly share: number;
  readonly shareAtFirst: number;
  /** Infinity: not before the last request. */
  readonly recoveryS: number;
}

export function measureChange(
  workload: Workload,
  result: RunResult,
  events: readonly FleetEvent[],
  replicas: number,
): FleetChange {
  const firstUs = Math.min(...events.map(({ atUs }) => atUs));
  const lastUs = Math.max(...events.map(({ atUs }) => atUs));
  const row = events[0]?.row ?? 0;
  const ups = Math.max(replicas, row + 1);
  const endUs = workload.arrivalUs[workload.count - 1] as number;
  const steady = ttftP90(result, 0, firstUs);
  let recoveryS = Number.POSITIVE_INFINITY;
  for (let fromUs = lastUs; fromUs + windowUs <= endUs; fromUs += windowUs) {
    if (ttftP90(result, fromUs, fromUs + windowUs) > recovered * steady) continue;
    recoveryS = (fromUs - lastUs) / 1e6;
    break;
  }
  return {
    share: shareOf(result, row, lastUs, endUs) * ups,
    shareAtFirst: shareOf(result, row, lastUs, lastUs + stampedeUs) * ups,
    recoveryS,
  };
}

/** Of the measured requests sent in the time. */
function ttftP90({ records, measuredFrom }: RunResult, fromUs: number, toUs: number): number {
  const values: number[] = [];
  for (let i = measuredFrom; i < records.outcome.length; i++) {
    const sentUs = records.sentUs[i] as number;
    if (records.outcome[i] !== Outcome.finished || sentUs < fromUs || sentUs >= toUs) continue;
    values.push((records.firstUs[i] as number) - sentUs);
  }
  return latencyOf(Float64Array.from(values)).p90;
}

function shareOf({ records }: RunResult, row: number, fromUs: number, toUs: number): number {
  let all = 0;
  let here = 0;
  for (let i = 0; i < records.row.length; i++) {
    const us = records.dispatchUs[i] as number;
    if (records.dispatches[i] === 0 || us < fromUs || us >= toUs) continue;
    all++;
    if (records.row[i] === row) here++;
  }
  return all === 0 ? 0 : here / all;
}
