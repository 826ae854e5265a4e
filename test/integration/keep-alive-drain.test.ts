/** A client has our own head and comments (`streams.keep_alive`) when its connection is to be closed. */
import { expect, test } from 'vitest';
import { testEngines, withGateway } from '../support/gateway.ts';
import { RawClient, rawPost } from '../support/raw-client.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, chatPath } from '../support/scenario.ts';
import { reached } from '../support/traffic.ts';

test.each(testEngines)(
  'a drain that begins behind the head closes with the next answer, engine %s',
  async (engine) => {
    const replica = await replicaInProcess({ model: 'm', profile: 'instant' });
    try {
      const models = [{ name: 'm', replicas: [{ url: replica.url }] }];
      const sections = { streams: { keep_alive: '100ms' }, drain: { settle: '10m' } };
      const config = { listen: { engine }, ...sections, models };
      await withGateway({ config }, async (gateway) => {
        const client = await RawClient.connect(gateway.port);
        const ask = (prompt: string) =>
          client.send(rawPost(chatPath, { ...chatBody(prompt), stream: true }));
        await ask('x [[len=1]] [[hold]]');
        await replica.gate.arrivals(1);
        await client.until((received) => received.includes(': keep-alive'));
        gateway.kill('SIGTERM');
        await reached(
          () => gateway.ready(),
          ({ status }) => status === 503,
          'it drains',
        );
        replica.gate.release();
        await client.responses(1);
        await ask('y [[len=1]]');
        const { responses } = await client.responses(2);
        const seen = responses.map(({ status, headers }) => [
          status,
          headers.get('connection') === 'close',
        ]);
        expect(seen).toEqual([
          [200, false],
          [200, true],
        ]);
        await client.close();
        gateway.kill('SIGTERM');
        await gateway.exited;
      });
    } finally {
      await replica.close();
    }
  },
);
