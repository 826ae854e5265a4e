/**
 * Restarts that overlap, as the gateway that serves sees them: asked for here, done by the supervisor,
 * counted and shown when they have ended. Main thread.
 */
import type { MetricsWriter } from '../shm/metrics.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { Result } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import { ByHand } from './by-hand.ts';

export class Restarts {
  readonly #ask: (() => void) | undefined;
  readonly #writer: MetricsWriter;
  readonly #logger: Logger;
  readonly byHand = new ByHand();
  #problem = '';

  /** `ask` tells the supervisor; undefined where there is none. */
  constructor(ask: (() => void) | undefined, writer: MetricsWriter, logger: Logger) {
    this.#ask = ask;
    this.#writer = writer;
    this.#logger = logger;
  }

  /** Why the last one failed, since this process serves; '' when none did. */
  get problem(): string {
    return this.#problem;
  }

  /** False: nobody can start another process. */
  ask(): boolean {
    this.#ask?.();
    return this.#ask !== undefined;
  }

  /** Another process has taken over, with the replicas of its file. */
  replaced(): void {
    const { text } = this.byHand;
    if (text !== '') this.#logger.warn('changes by hand are not taken over', { err: text });
  }

  ended(problem: string): void {
    this.#problem = problem;
    this.#writer.add(metrics.restarts, problem === '' ? Result.ok : Result.failed, 1);
    if (problem === '') this.#logger.info('this process has taken over');
    else this.#logger.error('restart failed; this process stays', { err: problem });
  }
}
