/**
 * Watchdog: looks at every thread's heartbeat. Runs on the main thread.
 *
 * A scheduler or forwarder silent for 5 s, or an acceptor for 10 s, is beyond help (RELIABILITY 4). A gap that this thread itself slept through (SIGSTOP, a starved machine)
 * is no verdict: the watchdog looks again a period later.
 */
import { nowMs } from '../lib/clock.ts';
import { ThreadPhase } from '../shm/control.layout.ts';
import type { GatewayViews } from './views.ts';

const periodMs = 500;
const ownGapMsMax = 1000;
const silentSecondsMax = 5;
const acceptorSilentSecondsMax = 10;

export class Watchdog {
  readonly #views: GatewayViews;
  readonly #onSilent: (thread: string, reason: string) => void;
  #timer: NodeJS.Timeout | undefined;
  #lookedAt = 0;

  constructor(views: GatewayViews, onSilent: (thread: string, reason: string) => void) {
    this.#views = views;
    this.#onSilent = onSilent;
  }

  start(): void {
    this.#lookedAt = nowMs();
    this.#timer = setInterval(() => this.look(), periodMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  look(): void {
    const gap = nowMs() - this.#lookedAt;
    this.#lookedAt = nowMs();
    if (gap > ownGapMsMax) return;
    for (const thread of this.#views.threads()) {
      if (thread.phase !== ThreadPhase.running) continue;
      const limit = thread.name.startsWith('acceptor')
        ? acceptorSilentSecondsMax
        : silentSecondsMax;
      if (thread.heartbeatAgeSeconds <= limit) continue;
      this.#onSilent(
        thread.name,
        `${thread.name} has been silent for ${thread.heartbeatAgeSeconds.toFixed(1)} s`,
      );
      return;
    }
  }
}
