/**
 * File descriptors: what the gateway may need against what the process may open. Main thread.
 *
 * At the descriptor limit uWebSockets.js spins on accept and serves nobody (RELIABILITY 0.7), so the
 * gateway refuses to start, and later to take a replica, when its own caps add up to more than the limit.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';

/** Files, pipes, epoll and probe connections of all threads. */
const marginDescriptors = 128;

/** Soft limit of open files; infinite where the system does not tell. */
export function descriptorLimit(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    const soft = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
    return soft === undefined || soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** Descriptors open in this process, or -1 where the system does not tell. */
export function descriptorsOpen(): number {
  try {
    // Linux 6.2 and later say how many there are; before, the size of the folder is 0.
    return statSync('/proc/self/fd').size || readdirSync('/proc/self/fd').length;
  } catch {
    return -1;
  }
}

/** Each forwarder has connections of its own, a quarter more than may be in flight. */
export function replicaConnections(maxInFlights: readonly number[], forwarders: number): number {
  return maxInFlights.reduce((sum, limit) => sum + Math.ceil(limit * 1.25), 0) * forwarders;
}

/** The reason not to serve that many, or undefined when the caps fit. */
export function descriptorProblem(
  maxConnections: number,
  acceptors: number,
  replicaConnections: number,
  limit = descriptorLimit(),
): string | undefined {
  const needed = maxConnections * acceptors + replicaConnections + marginDescriptors;
  if (needed <= limit) return undefined;
  return (
    `needs up to ${needed} open files (${acceptors} x ${maxConnections} clients + ` +
    `${replicaConnections} to replicas + ${marginDescriptors}) but the limit is ${limit}: raise it ` +
    '(ulimit -n, LimitNOFILE) or lower listen.max_connections or max_in_flight'
  );
}
