/**
 * Thread recovery: decides what follows when a scheduler or forwarder dies while the gateway serves.
 * Main thread.
 *
 * One that dies is started again, and its successor takes over by itself what it owned (slot rows and
 * rings). What cannot be trusted ends the process: a death while a successor is on its way, a successor
 * that does not come, or more deaths in a minute than chance explains.
 */
import { nowMs } from '../lib/clock.ts';
import type { Logger } from '../telemetry/log.ts';

const deathsMax = 5;
const deathsWindowMs = 60_000;
/** A successor takes some 300 ms of processor time; past this it hangs, however busy the machine is. */
const startMsMax = 15_000;

export interface RecoveryParts {
  readonly logger: Pick<Logger, 'error' | 'warn'>;
  /** Starts a successor; resolves once it serves. */
  start(name: string): Promise<void>;
  onRestarted(name: string): void;
  giveUp(reason: string, error: unknown): void;
}

export class ThreadRecovery {
  readonly #parts: RecoveryParts;
  #deathsMs: number[] = [];
  #recovering = '';

  constructor(parts: RecoveryParts) {
    this.#parts = parts;
  }

  died(name: string, error: unknown): void {
    const now = nowMs();
    this.#deathsMs = this.#deathsMs.filter((at) => now - at < deathsWindowMs);
    this.#deathsMs.push(now);
    if (this.#recovering !== '') {
      this.#parts.giveUp(`${name} died while ${this.#recovering} was started again`, error);
    } else if (this.#deathsMs.length > deathsMax) {
      this.#parts.giveUp(`${name} died, the ${deathsMax + 1}th thread within a minute`, error);
    } else {
      this.#parts.logger.error(`${name} died; it is started again`, { err: error });
      void this.#recover(name, now);
    }
  }

  async #recover(name: string, diedMs: number): Promise<void> {
    const { logger, start, giveUp, onRestarted } = this.#parts;
    this.#recovering = name;
    const late = setTimeout(() => giveUp(`${name} did not start again`, undefined), startMsMax);
    try {
      await start(name);
      this.#recovering = '';
      onRestarted(name);
      logger.warn(`${name} serves again after ${Math.round(nowMs() - diedMs)} ms`);
    } catch (error) {
      giveUp(`${name} could not be started again`, error);
    } finally {
      clearTimeout(late);
    }
  }
}
