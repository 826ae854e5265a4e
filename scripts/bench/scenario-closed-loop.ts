/**
 * Closed loop, 64 connections, replicas that answer at once: what passes through when nothing else
 * takes time. Each target is driven in turns by autocannon and by our generator; on two cores the
 * generator and the replicas share the machine with the target, so only ratios mean anything.
 */
import autocannon from 'autocannon';
import type { BenchContext, Scenario } from './bench-context.ts';
import { inTurns, type Round, rateFigures, rateRatio } from './compare-targets.ts';
import { measure } from './measure.ts';
import { CpuMeter } from './procfs.ts';
import { model, startReplicas } from './replicas.ts';
import { startTargets, type Target, targetNames } from './targets.ts';

const connections = 64;

export const closedLoop: Scenario = {
  name: 'closed-loop',
  question: 'How many small requests pass, against HAProxy, nginx and a minimal Node proxy?',
  async run(bench) {
    const fleet = await startReplicas(bench, bench.parameter({ smoke: 1, full: 2 }), 'instant');
    const { targets, skipped } = await startTargets(bench, fleet, targetNames);
    const turnMs = bench.parameter({ smoke: 1000, full: 2000 });
    const warmupMs = bench.parameter({ smoke: 1000, full: 8000 });
    const rounds = bench.parameter({ smoke: 1, full: 7 });
    const own = await inTurns(bench, targets, rounds, (target, isWarmup) =>
      withOwn(bench, target, isWarmup ? warmupMs : turnMs),
    );
    const cannon = await inTurns(bench, targets, rounds, (target, isWarmup) =>
      withAutocannon(target, isWarmup ? warmupMs : turnMs),
    );
    const limits = { floor: 0.5, aim: 1 };
    const byCannon = ' (autocannon)';
    const ratios = [
      rateRatio(own, '', 'haproxy', limits),
      rateRatio(own, '', 'nginx', {}),
      rateRatio(own, '', 'uws', {}),
      rateRatio(own, '', 'direct', {}),
      rateRatio(cannon, byCannon, 'haproxy', limits),
    ];
    return {
      figures: [
        ...ratios.filter((figure) => figure !== undefined),
        ...rateFigures(own, ''),
        ...rateFigures(cannon, byCannon),
      ],
      skipped,
      data: { own, autocannon: cannon },
    };
  },
};

async function withOwn(bench: BenchContext, target: Target, durationMs: number): Promise<Round> {
  const shape = { connections, warmupMs: 300, durationMs };
  const { report, cpuUsPerRequest } = await measure(bench, target, shape);
  return {
    requestsPerSecond: report.request_throughput,
    cpuUsPerRequest,
    failed: report.failed,
    report,
  };
}

async function withAutocannon(target: Target, durationMs: number): Promise<Round> {
  const meters = target.children.map((child) => new CpuMeter(child.pid));
  const result = await autocannon({
    url: `http://127.0.0.1:${target.ports[0]}/v1/chat/completions`,
    connections,
    duration: durationMs / 1000,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model,
      messages: [{ role: 'user', content: 'hello' }],
      max_tokens: 16,
    }),
  });
  const cpuSeconds = meters.reduce((sum, meter) => sum + meter.read().seconds, 0);
  const { requests, latency, errors, timeouts, non2xx, duration } = result;
  return {
    requestsPerSecond: requests.total / duration,
    cpuUsPerRequest: (cpuSeconds * 1e6) / requests.total,
    failed: errors + timeouts + non2xx,
    report: { requests: requests.total, errors, timeouts, non2xx, duration, latency },
  };
}
