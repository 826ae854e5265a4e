/**
 * Tells whether file descriptors are about to run out. Acceptor threads; one open and close, about 4 us.
 *
 * At the limit uWebSockets.js spins on the connection it cannot accept and serves nobody, so each new
 * connection is dropped while fewer than `reserve` descriptors are left: what is accepted can then
 * always be closed again, and forwarders still find some for replicas. A new descriptor takes the
 * lowest free number, so one number tells how many are left at least.
 */
import { closeSync, openSync, readFileSync } from 'node:fs';

const reserve = 16;

export class DescriptorWatch {
  readonly #limit = softLimit();

  /** True when a connection that was just accepted should be dropped. */
  isShort(): boolean {
    if (this.#limit === Number.POSITIVE_INFINITY) return false;
    try {
      const descriptor = openSync('/dev/null', 'r');
      closeSync(descriptor);
      return descriptor >= this.#limit - reserve;
    } catch {
      return true;
    }
  }
}

/** Infinity where the system does not tell. */
function softLimit(): number {
  try {
    const line = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'));
    return line === null ? Number.POSITIVE_INFINITY : Number(line[1]);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
