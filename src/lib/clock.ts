/**
 * One monotonic clock for every thread of the process.
 *
 * `performance.now()` is cheap (about 40 ns) but each worker counts from its own start; the offset
 * to the machine's monotonic clock is measured once a thread, so readings of two threads compare to
 * within a few microseconds. Wall-clock time is for log text only.
 */
const offsetMs = measureOffsetMs();

/** Microseconds since the machine's monotonic epoch; fractional. */
export function nowUs(): number {
  return (performance.now() + offsetMs) * 1000;
}

/** Milliseconds on the same clock as `nowUs`. */
export function nowMs(): number {
  return performance.now() + offsetMs;
}

function measureOffsetMs(): number {
  // The tightest of a few brackets: a preempted reading would skew every later latency figure.
  let best = Number.POSITIVE_INFINITY;
  let offset = 0;
  for (let i = 0; i < 16; i++) {
    const before = performance.now();
    const machine = Number(process.hrtime.bigint()) / 1e6;
    const after = performance.now();
    if (after - before >= best) continue;
    best = after - before;
    offset = machine - (before + after) / 2;
  }
  return offset;
}
