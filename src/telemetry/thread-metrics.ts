/** How the threads of the gateway fare. Part of the catalogue. */
import { counter, gauge, readCounter } from './metric-makers.ts';

/** Made where the catalogue names them: a metric's id is its place there. */
export const threadMetrics = () => ({
  threadHeartbeatAge: gauge(
    'sluice_thread_heartbeat_age_seconds',
    ['thread'],
    'seconds',
    'Time since the thread last showed that it is alive.',
  ),
  eventLoopUtilization: gauge(
    'sluice_event_loop_utilization',
    ['thread'],
    'ratio',
    'Share of the last second that the event loop of the thread was busy.',
  ),
  threadCpu: readCounter(
    'sluice_thread_cpu_seconds_total',
    ['thread'],
    'seconds',
    'CPU time of the thread and of those before it under its name, as of the last scrapes; `other`: helpers of the runtime. Where the system has /proc.',
  ),
  threadRestarts: counter(
    'sluice_thread_restarts_total',
    ['thread'],
    ['main'],
    'Threads of this kind that died and were started again; each death is a bug.',
  ),
});
