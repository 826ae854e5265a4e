/**
 * What traces cost: a gateway that sends spans of one request in a hundred to a collector, against one that
 * sends none, at 8,000 requests per second, one in ten a stream of 16 tokens. The collector takes the
 * bytes and is part of this process, whose processor time is nobody's here.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Scenario } from './bench-context.ts';
import type { Figure } from './figures.ts';
import { startReplicas } from './replicas.ts';
import { drive, ratioFigures } from './rounds.ts';
import { startGateway } from './targets.ts';

const streamShare = 0.1;

export const tracing: Scenario = {
  name: 'tracing',
  question: 'What do traces of 1 % of the requests cost at 8,000 requests per second?',
  async run(bench) {
    let bytes = 0;
    const collector = createServer((request, response) => {
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      request.on('end', () => response.end());
    });
    await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
    const { port } = collector.address() as AddressInfo;
    try {
      const endpoint = `http://127.0.0.1:${port}/v1/traces`;
      const sections = { tracing: { endpoint, sample: 0.01 } };
      const fleet = await startReplicas(bench, 4, 'uniform:8ms-24ms');
      const ours = await startGateway(bench, fleet, 'marginal_cost', { sections });
      const theirs = await startGateway(bench, fleet, 'marginal_cost');
      const rounds = await drive(
        bench,
        [ours, theirs],
        [
          { share: 1 - streamShare, connections: 320 },
          { share: streamShare, connections: 64, stream: true, outputTokens: 16 },
        ],
      );
      const sent: Figure = {
        ...{ name: 'spans that reached the collector', value: bytes / 1024, unit: 'KiB' },
        better: 'higher',
      };
      const figures = [...ratioFigures('traced / not', rounds, 1.03), sent];
      return { figures, skipped: [], data: rounds };
    } finally {
      collector.closeAllConnections();
      collector.close();
    }
  },
};
