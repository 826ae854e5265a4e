/**
 * A workload: every request of a run, as parallel columns in the order of arrival. Pure.
 *
 * blocks[blockStart[i] .. blockStart[i + 1]) are the prompt blocks of request i. An id stands for a
 * block and everything before it, so two prompts share a prefix exactly as far as their ids agree.
 * Only full blocks count, as only those are kept by an engine. Ids are dense enough to index a table.
 */
import { assert } from '../lib/assert.ts';

export const NO_REQUEST = -1;

export interface Workload {
  readonly count: number;
  readonly blockTokens: number;
  /** Ids in use are below this. */
  readonly blockCount: number;
  readonly tenantCount: number;
  readonly arrivalUs: Float64Array;
  readonly promptTokens: Int32Array;
  readonly outputTokens: Int32Array;
  readonly tenant: Int32Array;
  /** Chat that the request belongs to. */
  readonly session: Int32Array;
  /** The turn before this one in its chat; NO_REQUEST for the first. */
  readonly previous: Int32Array;
  /** Block that stands for the head of the prompt, behind what every prompt has in common. */
  readonly headBlock: Int32Array;
  readonly blockStart: Int32Array;
  readonly blocks: Int32Array;
}

export interface Arrival {
  readonly arrivalUs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly tenant: number;
  /** Ids of its blocks, from a BlockChain; the last may be partial. */
  readonly blocks: readonly number[];
  readonly session?: number;
  /** Position in the builder of the turn before it. */
  readonly previous?: number;
}

/** Gives the same id to the same content behind the same prefix, and to nothing else. */
export class BlockChain {
  count = 0;
  readonly #ids = new Map<number, number>();

  /** `parent`: id of the block before, NO_REQUEST for none; `content`: any id of the content. */
  extend(parent: number, content: number): number {
    // Both parts stay below 2^26, so the key is an exact integer.
    assert(content >= 0 && content < 0x4000000 && this.count < 0x4000000);
    const key = (parent + 1) * 0x4000000 + content;
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    this.#ids.set(key, this.count);
    return this.count++;
  }

  /** A block that no other prompt has. */
  fresh(): number {
    return this.count++;
  }
}

export interface WorkloadShape {
  readonly blockTokens: number;
  readonly blockCount: number;
  readonly tenantCount: number;
  /** Leading blocks that every prompt has in common, such as one system prompt. */
  readonly commonBlocks: number;
}

/** Sorts by arrival, keeping the given order among equals, and packs the columns. */
export function packWorkload(arrivals: readonly Arrival[], shape: WorkloadShape): Workload {
  const count = arrivals.length;
  const order = Array.from(arrivals.keys()).sort(
    (a, b) => at(arrivals, a).arrivalUs - at(arrivals, b).arrivalUs || a - b,
  );
  const position = new Int32Array(count);
  order.forEach((from, to) => {
    position[from] = to;
  });
  const fullBlocks = arrivals.reduce(
    (sum, { promptTokens }) => sum + Math.floor(promptTokens / shape.blockTokens),
    0,
  );
  const workload = emptyColumns(count, fullBlocks, shape);
  let cursor = 0;
  order.forEach((from, i) => {
    const arrival = at(arrivals, from);
    const { blocks: all, previous } = arrival;
    const blocks = all.slice(0, Math.floor(arrival.promptTokens / shape.blockTokens));
    assert(arrival.promptTokens > 0 && arrival.outputTokens > 0, 'a request has tokens');
    workload.arrivalUs[i] = Math.round(arrival.arrivalUs);
    workload.promptTokens[i] = arrival.promptTokens;
    workload.outputTokens[i] = arrival.outputTokens;
    workload.tenant[i] = arrival.tenant;
    workload.session[i] = arrival.session ?? i;
    workload.previous[i] = previous === undefined ? NO_REQUEST : (position[previous] as number);
    workload.headBlock[i] = all[Math.min(shape.commonBlocks, all.length - 1)] ?? NO_REQUEST;
    workload.blockStart[i] = cursor;
    workload.blocks.set(blocks, cursor);
    cursor += blocks.length;
  });
  workload.blockStart[count] = cursor;
  return workload;
}

/** The same requests at `factor` times the rate: every time is divided, nothing else changes. */
export function atRateFactor(workload: Workload, factor: number): Workload {
  assert(factor > 0);
  return { ...workload, arrivalUs: workload.arrivalUs.map((us) => Math.round(us / factor)) };
}

/** Requests per second between the first and the last arrival. */
export function meanRate({ arrivalUs, count }: Workload): number {
  if (count < 2) return 0;
  const spanUs = (arrivalUs[count - 1] as number) - (arrivalUs[0] as number);
  return spanUs > 0 ? ((count - 1) * 1e6) / spanUs : 0;
}

export function atMeanRate(workload: Workload, rate: number): Workload {
  return atRateFactor(workload, rate / meanRate(workload));
}

/** The first `count` requests; they are the earliest, so no turn loses the one before it. */
export function firstRequests(workload: Workload, count: number): Workload {
  if (count >= workload.count) return workload;
  const blocksEnd = workload.blockStart[count] as number;
  const cut = <T extends Int32Array | Float64Array>(column: T): T => column.slice(0, count) as T;
  return {
    ...workload,
    count,
    arrivalUs: cut(workload.arrivalUs),
    promptTokens: cut(workload.promptTokens),
    outputTokens: cut(workload.outputTokens),
    tenant: cut(workload.tenant),
    session: cut(workload.session),
    previous: cut(workload.previous),
    headBlock: cut(workload.headBlock),
    blockStart: workload.blockStart.slice(0, count + 1),
    blocks: workload.blocks.slice(0, blocksEnd),
  };
}

/**
 * Prompt tokens that an endless cache shared by all would hold when they arrive, per prompt token.
 * The last token is always computed: its logits are what the engine samples from.
 */
export function unlimitedHitRate(workload: Workload, from: number): number {
  const seen = new Uint8Array(workload.blockCount);
  let hits = 0;
  let total = 0;
  for (let i = 0; i < workload.count; i++) {
    const start = workload.blockStart[i] as number;
    const end = workload.blockStart[i + 1] as number;
    let at = start;
    while (at < end && seen[workload.blocks[at] as number] === 1) at++;
    for (let rest = at; rest < end; rest++) seen[workload.blocks[rest] as number] = 1;
    if (i < from) continue;
    const promptTokens = workload.promptTokens[i] as number;
    hits += Math.min((at - start) * workload.blockTokens, promptTokens - 1);
    total += promptTokens;
  }
  return total === 0 ? 0 : hits / total;
}

function emptyColumns(count: number, blocks: number, shape: WorkloadShape): Workload {
  return {
    count,
    blockTokens: shape.blockTokens,
    blockCount: shape.blockCount,
    tenantCount: shape.tenantCount,
    arrivalUs: new Float64Array(count),
    promptTokens: new Int32Array(count),
    outputTokens: new Int32Array(count),
    tenant: new Int32Array(count),
    session: new Int32Array(count),
    previous: new Int32Array(count),
    headBlock: new Int32Array(count),
    blockStart: new Int32Array(count + 1),
    blocks: new Int32Array(blocks),
  };
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  assert(item !== undefined);
  return item;
}
