/**
 * Tells whether the generator itself was the limit: its CPU share, its event-loop utilisation and
 * how late its own ticks came. Figures of a saturated generator describe the generator.
 */
import { type EventLoopUtilization, performance } from 'node:perf_hooks';
import { nowUs } from '../lib/clock.ts';
import { Latency } from './latency.ts';

export interface SelfCheckResult {
  readonly cpuUsPerRequest: number;
  /** CPU time of the process over wall time; 1 is one whole core. */
  readonly cpuShare: number;
  readonly eventLoopUtilization: number;
  readonly lagP99Ms: number;
  readonly lagMaxMs: number;
  readonly saturated: boolean;
}

const saturatedShare = 0.85;
const saturatedLagMs = 20;

export class SelfCheck {
  readonly #lag = new Latency();
  readonly #startUs = nowUs();
  readonly #cpu: NodeJS.CpuUsage = process.cpuUsage();
  readonly #loop: EventLoopUtilization = performance.eventLoopUtilization();
  #tickUs = 0;

  tick(atUs: number, periodMs: number): void {
    if (this.#tickUs > 0) this.#lag.record(atUs - this.#tickUs - periodMs * 1000);
    this.#tickUs = atUs;
  }

  lagP99Ms(): number {
    return this.#lag.percentileMs(99);
  }

  /** `requests`: those that ended since this check began. */
  result(requests: number): SelfCheckResult {
    const cpu = process.cpuUsage(this.#cpu);
    const cpuUs = cpu.user + cpu.system;
    const wallUs = nowUs() - this.#startUs;
    const cpuShare = wallUs > 0 ? cpuUs / wallUs : 0;
    const { utilization } = performance.eventLoopUtilization(this.#loop);
    const lagP99Ms = this.lagP99Ms();
    return {
      cpuUsPerRequest: requests > 0 ? cpuUs / requests : 0,
      cpuShare,
      eventLoopUtilization: utilization,
      lagP99Ms,
      lagMaxMs: this.#lag.summary().max,
      saturated: utilization > saturatedShare || lagP99Ms > saturatedLagMs,
    };
  }
}
