/**
 * Breaker log: tells the log which replicas the scheduler has left out for what they did, and which are
 * back. Runs on the main thread: the scheduler, which decides, does not log. It looks a few times a
 * second, and counts what it did not see.
 */
import { BreakerState } from '../dispatch/breaker.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Member, Membership } from './membership.ts';

const periodMs = 250;

interface Seen {
  readonly state: BreakerState;
  readonly ejections: number;
}

export class BreakerLog {
  readonly #membership: Membership;
  readonly #logger: Pick<Logger, 'info' | 'warn'>;
  readonly #seen = new WeakMap<Member, Seen>();
  #timer: NodeJS.Timeout | undefined;

  constructor(membership: Membership, logger: Pick<Logger, 'info' | 'warn'>) {
    this.#membership = membership;
    this.#logger = logger;
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), periodMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  look(): void {
    for (const member of this.#membership) this.#lookAt(member);
  }

  #lookAt(member: Member): void {
    const { breaker: state, ejections } = this.#membership.state(member);
    const { state: before, ejections: told } = this.#seen.get(member) ?? {
      state: BreakerState.closed,
      ejections: member.ejectionsBefore,
    };
    this.#seen.set(member, { state, ejections });
    const replica = member.name;
    if (ejections !== told) {
      this.#logger.warn('replica is left out: too many of its answers failed', { replica });
    }
    const wasOut = before !== BreakerState.closed || ejections !== told;
    if (wasOut && state === BreakerState.closed) this.#logger.info('replica is back', { replica });
  }
}
