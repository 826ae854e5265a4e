/**
 * Watches memory and descriptors of the process, and tells the acceptors what to give up before they
 * run out (overload-stages.ts). Runs on the main thread of the gateway process; never blocks.
 *
 * The only word it writes is `overload` of the control block; acceptors look at it when they act, so a
 * stage needs no bell and is over everywhere at once. While the main thread stands still, the last
 * sample holds.
 */
import type { Config } from '../config/schema.ts';
import { formatSize } from '../lib/quantity.ts';
import { ControlLayout, overloadSampleShift } from '../shm/control.layout.ts';
import { controlCounts, type SharedMemory } from '../shm/memory.ts';
import type { Logger } from '../telemetry/log.ts';
import { descriptorLimit, descriptorsOpen } from './descriptors.ts';
import { countedBytes, excessBytes, memoryLimit, memoryWarning } from './memory-limit.ts';
import {
  actionsOf,
  descriptorLadder,
  type Ladder,
  memoryLadder,
  type OverloadStage,
  rungsAfter,
  stageOf,
} from './overload-stages.ts';

const sampleMs = 250;
/** Descriptors are counted every so many samples: older kernels list each of them for that. */
const samplesPerCount = 4;

export interface OverloadReading {
  readonly resource: 'memory' | 'descriptors';
  readonly stage: OverloadStage;
  /** Used share of the limit; 0 where there is no limit. */
  readonly share: number;
  /** Bytes or descriptors; infinite where it is not watched or not known. */
  readonly limit: number;
}

/** One resource and how far it has come. */
class Gauge {
  readonly resource: OverloadReading['resource'];
  readonly limit: number;
  readonly #ladder: Ladder;
  /** What is used; negative where it cannot be told, and then the last sample holds. */
  readonly #measure: () => number;
  #rungs = 0;
  #share = 0;

  constructor(
    resource: OverloadReading['resource'],
    ladder: Ladder,
    limit: number,
    measure: () => number,
  ) {
    this.resource = resource;
    this.limit = limit;
    this.#ladder = ladder;
    this.#measure = measure;
  }

  get reading(): OverloadReading {
    const { resource, limit } = this;
    return { resource, stage: stageOf(this.#ladder, this.#rungs), share: this.#share, limit };
  }

  get actions(): number {
    return actionsOf(this.#ladder, this.#rungs);
  }

  /** Looks once; how many stages further it has come. */
  sample(): number {
    if (this.limit === Number.POSITIVE_INFINITY) return 0;
    const used = this.#measure();
    if (used < 0) return 0;
    const before = this.#rungs;
    this.#share = used / this.limit;
    this.#rungs = rungsAfter(this.#ladder, before, this.#share);
    return this.#rungs - before;
  }
}

export class OverloadWatch {
  readonly #control: Int32Array;
  readonly #overload: number;
  readonly #logger: Pick<Logger, 'info' | 'warn'>;
  readonly #memory: Gauge;
  readonly #descriptors: Gauge;
  #samples = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    memory: SharedMemory,
    config: Pick<Config, 'degrade' | 'memory' | 'threads'>,
    logger: Pick<Logger, 'info' | 'warn'>,
    arenaUsed: () => number,
  ) {
    const { degrade } = config;
    this.#control = new Int32Array(memory.control);
    this.#overload = ControlLayout.attach(memory.control, controlCounts(memory.size)).at.overload;
    this.#logger = logger;
    const bytes = memoryLimit(degrade.memory);
    const excess = excessBytes(config);
    let arenaPeak = 0;
    this.#memory = new Gauge('memory', memoryLadder, bytes, () => {
      const used = arenaUsed();
      arenaPeak = Math.max(arenaPeak, used);
      const resident = residentBytes();
      return resident < 0 ? resident : countedBytes(resident, used, arenaPeak, excess);
    });
    const warning = memoryWarning(config);
    if (warning !== '') logger.warn(warning);
    const files = degrade.descriptors ? descriptorLimit() : Number.POSITIVE_INFINITY;
    this.#descriptors = new Gauge('descriptors', descriptorLadder, files, () => {
      const open = descriptorsOpen();
      return open < 0 ? files : open; // counting them takes one, so none is left
    });
  }

  start(): void {
    this.sample();
    this.#timer = setInterval(() => this.sample(), sampleMs).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  readings(): readonly OverloadReading[] {
    return [this.#memory.reading, this.#descriptors.reading];
  }

  sample(): void {
    this.#look(this.#memory);
    if (this.#samples % samplesPerCount === 0) this.#look(this.#descriptors);
    this.#samples++;
    const actions = this.#memory.actions | this.#descriptors.actions;
    const word = (this.#samples << overloadSampleShift) | actions;
    Atomics.store(this.#control, this.#overload, word);
  }

  #look(gauge: Gauge): void {
    const change = gauge.sample();
    if (change === 0) return;
    const { resource, stage, share, limit } = gauge.reading;
    const total = resource === 'memory' ? formatSize(limit) : `${limit}`;
    const text = `overload: ${resource} at ${Math.round(share * 100)} % of ${total}, stage ${stage}`;
    if (change > 0) this.#logger.warn(text);
    else this.#logger.info(text);
  }
}

/** Negative when no descriptor is left to read it with. */
function residentBytes(): number {
  try {
    return process.memoryUsage.rss();
  } catch {
    return -1;
  }
}
