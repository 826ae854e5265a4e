/** An engine with a small KV memory that is run by hand, and the log of what it said. */
import { Engine } from '../../../../src/replica/engine/engine.ts';
import { type EngineModel, engineModel } from '../../../../src/replica/engine/engine-model.ts';

export interface Logged {
  readonly what: 'first' | 'finished';
  readonly id: number;
  readonly us: number;
}

export class EngineRig {
  readonly model: EngineModel;
  readonly engine: Engine;
  readonly log: Logged[] = [];
  readonly steps: { durationUs: number; decodes: number }[] = [];
  nowUs = 0;
  completed = 0;

  constructor(change: Partial<EngineModel> = {}, blockTokens = 16) {
    this.model = { ...engineModel('8b-h100'), ...change };
    this.engine = new Engine(this.model, blockTokens, {
      firstToken: (id, us) => void this.log.push({ what: 'first', id, us }),
      finished: (id, us) => void this.log.push({ what: 'finished', id, us }),
      step: (durationUs, decodes) => void this.steps.push({ durationUs, decodes }),
    });
  }

  submit(id: number, promptTokens: number, outputTokens: number, blocks: number[] = []): void {
    this.engine.submit(id, promptTokens, outputTokens, Int32Array.from(blocks), this.nowUs);
  }

  cancel(id: number): void {
    this.engine.cancel(id, this.nowUs);
  }

  /** Completes one step. */
  advance(): void {
    this.nowUs = this.engine.nextUs;
    this.completed++;
    this.engine.advance();
  }

  /** Until nothing is left. */
  drain(): void {
    while (this.engine.nextUs !== Number.POSITIVE_INFINITY) this.advance();
  }

  at(what: Logged['what'], id: number): number {
    return this.log.find((entry) => entry.what === what && entry.id === id)?.us ?? Number.NaN;
  }

  count(what: Logged['what'], id: number): number {
    return this.log.filter((entry) => entry.what === what && entry.id === id).length;
  }
}

/** Ids of `count` blocks of one prompt, from `from`. */
export function blockIds(count: number, from = 0): number[] {
  return Array.from({ length: count }, (_, i) => from + i);
}
