/**
 * Reader of the Azure LLM inference traces of 2023: TIMESTAMP,ContextTokens,GeneratedTokens. Pure.
 *
 * The traces say nothing of prefixes or chats, so every block is one of its own.
 */
import { assert } from '../../lib/assert.ts';
import { type Arrival, packWorkload, type Workload } from '../workload.ts';
import { FreshBlocks } from './fresh-blocks.ts';

const line = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)\.(\d{6})\d*,(\d+),(\d+)$/;

export function readAzure(text: string): Workload {
  const fresh = new FreshBlocks();
  const rows = text.split('\n').slice(1).filter(Boolean);
  let firstUs = Number.NaN;
  const arrivals = rows.map((row, index): Arrival => {
    const match = line.exec(row);
    assert(match !== null, `row ${index + 1} is an Azure request`);
    const [, day, time, micros, context, generated] = match;
    const us = Date.parse(`${day}T${time}Z`) * 1000 + Number(micros);
    if (Number.isNaN(firstUs)) firstUs = us;
    const promptTokens = Math.max(1, Number(context));
    return {
      arrivalUs: us - firstUs,
      promptTokens,
      outputTokens: Math.max(1, Number(generated)),
      tenant: 0,
      blocks: fresh.of(promptTokens),
    };
  });
  return packWorkload(arrivals, { ...fresh.shape(), tenantCount: 1 });
}
