/**
 * What it costs that streams never lie: a gateway with breakers, retries, automatic hedges, continuation,
 * keep-alive comments, media policy and the watch over its memory, against one with all of them off, at
 * 8,000 requests per second, one in ten a stream of 16 tokens.
 */
import type { Scenario } from './bench-context.ts';
import { startReplicas } from './replicas.ts';
import { drive, ratioFigures } from './rounds.ts';
import { type GatewayChanges, startGateway } from './targets.ts';

const streamShare = 0.1;

const all: GatewayChanges = {
  sections: { breaker: { mode: 'window' }, hedge: { automatic: true } },
  model: { continuation: 'text' },
};
const none: GatewayChanges = {
  sections: {
    breaker: { mode: 'off' },
    hedge: { automatic: false },
    retry: { max_attempts: 1 },
    slow_start: '0s',
    streams: { keep_alive: 'off' },
    degrade: { memory: 'off', descriptors: false },
  },
  model: { continuation: 'off', allowed_media_domains: ['*'] },
};

export const protection: Scenario = {
  name: 'protection',
  question:
    'What do breakers, hedges, continuation and the rest cost at 8,000 requests per second?',
  async run(bench) {
    const fleet = await startReplicas(bench, 4, 'uniform:8ms-24ms');
    const ours = await startGateway(bench, fleet, 'marginal_cost', all);
    const theirs = await startGateway(bench, fleet, 'marginal_cost', none);
    const rounds = await drive(
      bench,
      [ours, theirs],
      [
        { share: 1 - streamShare, connections: 320 },
        { share: streamShare, connections: 64, stream: true, outputTokens: 16 },
      ],
    );
    return { figures: ratioFigures('all on / all off', rounds), skipped: [], data: rounds };
  },
};
