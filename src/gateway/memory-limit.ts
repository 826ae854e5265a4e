/**
 * The memory the gateway process may have, and what its config can make it keep for good. Main thread, at
 * start; `countedBytes` is pure.
 *
 *   lasting = base + arena + response rings      pages of shared memory are never given back
 *
 * Where `lasting` is past `restShare` of the limit, a burst that fills the arena would leave the process in
 * a stage of degrade with nobody to leave it for. There, free arena that was in use once does not count:
 * requests get it without another page. Elsewhere it counts, since heaps may need what it holds.
 */
import { totalmem } from 'node:os';
import type { Config } from '../config/schema.ts';
import { formatSize } from '../lib/quantity.ts';

/** Bytes of answers on their way between one forwarder and one acceptor. */
export const responseRingBytes = 4 * 1024 * 1024;
/** Code, heaps and stacks of a gateway at rest: 100 to 200 MB. */
const baseBytes = 160 * 1024 * 1024;
/** Where the first stage begins, and what a process at rest is brought to, below where that ends. */
const firstStageShare = 0.85;
const restShare = 0.8;

type Sizes = Pick<Config, 'degrade' | 'memory' | 'threads'>;

/** `auto`: what the control group of the process allows, else the memory of the machine. */
export function memoryLimit(limit: Config['degrade']['memory']): number {
  if (limit === 'off') return Number.POSITIVE_INFINITY;
  if (limit !== 'auto') return limit;
  const constrained = process.constrainedMemory(); // 0 or past all memory: there is none
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

function lastingBytes({ memory, threads }: Omit<Sizes, 'degrade'>): number {
  return baseBytes + memory.arena + threads.acceptors * threads.forwarders * responseRingBytes;
}

/** Of the lasting bytes, those that leave no room for a process at rest; 0 for a config that fits. */
export function excessBytes(config: Sizes): number {
  return Math.max(0, lastingBytes(config) - restShare * memoryLimit(config.degrade.memory));
}

/** `arenaPeak`: the most of the arena that was in use at one time. */
export function countedBytes(
  resident: number,
  arenaUsed: number,
  arenaPeak: number,
  excess: number,
): number {
  return resident - Math.min(excess, Math.max(0, arenaPeak - arenaUsed));
}

/** What an operator should know of the limit before it is met; '' when the config fits. */
export function memoryWarning(config: Sizes): string {
  const limit = memoryLimit(config.degrade.memory);
  const lasting = lastingBytes(config);
  if (lasting <= firstStageShare * limit) return '';
  const mib = (bytes: number): string => formatSize(Math.round(bytes / 1024 ** 2) * 1024 ** 2);
  return `memory.arena (${mib(config.memory.arena)}), rings and heaps may come to ${mib(lasting)} and stay there, ${Math.round((100 * lasting) / limit)} % of the limit of ${mib(limit)} (degrade.memory): lower memory.arena or raise the limit`;
}
