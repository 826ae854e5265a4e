/**
 * T26: the smuggling shapes through a real nginx and a real HAProxy that share few connections to the
 * gateway among all clients. Every request that a proxy forwards carries the proxy's id, so
 *   - a request at the replica without such an id was hidden in the bytes of another;
 *   - an answer with another id than the proxy's has crossed to a client that did not ask for it.
 */
import { createServer, connect as dial, type Server } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type FrontProxy,
  frontIdPrefix,
  frontKinds,
  frontProgram,
  frontProxy,
} from '../support/front-proxy.ts';
import { expectQuiet, type GatewayProcess, gatewayProcess } from '../support/gateway.ts';
import {
  parseResponses,
  RawClient,
  type RawResponse,
  rawPost,
  rawRequest,
} from '../support/raw-client.ts';
import { jsonAnswer, RawReplica, type RawRequest } from '../support/raw-replica.ts';
import { hiddenRequest, shapes } from '../support/smuggling-shapes.ts';

const path = '/v1/chat/completions';
/** Behind each shape, one after the other: they take the connection that the shape has used. */
const canariesPerShape = 2;

interface Answer {
  readonly id: string;
  readonly choices: readonly { message: { content: string } }[];
}

/** Says whom it answers: the id and the message of the request. */
function respond({ method, headers, body, connection: { socket } }: RawRequest): void {
  if (method !== 'POST') {
    socket.write(jsonAnswer({ data: [] }));
    return;
  }
  const { messages } = JSON.parse(body.toString()) as { messages: unknown[] };
  const message = { role: 'assistant', content: JSON.stringify(messages) };
  socket.write(
    jsonAnswer({
      id: headers['x-request-id'],
      object: 'chat.completion',
      choices: [{ index: 0, message, finish_reason: 'stop' }],
    }),
  );
}

/** Passes bytes on to the gateway and counts the connections of the proxy. */
class Relay {
  connections = 0;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(port: number): Promise<Relay> {
    const server = createServer();
    const relay = new Relay(server);
    server.on('connection', (socket) => {
      relay.connections++;
      const onward = dial({ port, host: '127.0.0.1', noDelay: true });
      socket.setNoDelay(true);
      socket.pipe(onward).pipe(socket);
      // Either side may be cut; the other one then has nobody to talk to.
      socket.on('error', () => {}).on('close', () => onward.destroy());
      onward.on('error', () => {}).on('close', () => socket.destroy());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return relay;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

/** Whether the answer is of the gateway; throws when it answers another request than the proxy's. */
function expectOwn({ status, headers, body }: RawResponse, what: string): boolean {
  const answered = headers.get('x-request-id');
  if (answered === undefined) {
    expect(status, what).toBeGreaterThanOrEqual(300); // a parser's own refusal names no request
    return false;
  }
  expect(answered, what).toBe(headers.get('x-front-id'));
  if (status === 200 && body.length > 0 && body.includes('chat.completion')) {
    expect((JSON.parse(body.toString()) as Answer).id, what).toBe(answered);
  }
  return true;
}

describe.each(frontKinds)('behind $name', (kind) => {
  let replica: RawReplica;
  let gateway: GatewayProcess;
  let relay: Relay;
  let front: FrontProxy;
  let canaries = 0;

  beforeEach(async () => {
    canaries = 0;
    replica = await RawReplica.listen(respond);
    gateway = await gatewayProcess({
      config: {
        listen: { engine: 'uws' },
        health: { interval: '10m' },
        log: { level: 'fatal' },
        models: [{ name: 'm', replicas: [{ url: replica.url }] }],
      },
    });
    relay = await Relay.listen(gateway.port);
    front = await frontProxy(kind, relay.port);
  });
  afterEach(async () => {
    await front.close();
    await gateway.close();
    await relay.close();
    await replica.close();
  });

  const posts = (): RawRequest[] => replica.requests.filter(({ method }) => method === 'POST');
  const hidden = (): RawRequest[] =>
    posts().filter(({ headers }) => !headers['x-request-id']?.startsWith(frontIdPrefix));

  /** A request with a tag of its own, whose answer must bear it. */
  async function canary(behind: string): Promise<void> {
    const messages = [{ role: 'user', content: `canary ${canaries++}` }];
    const { responses } = await rawRequest(front.port, rawPost(path, { model: 'm', messages }));
    const what = `canary behind ${behind}`;
    expect(responses[0]?.status, `${what}: ${responses[0]?.body}`).toBe(200);
    expect(expectOwn(responses[0]!, what), what).toBe(true);
    const answer = JSON.parse(responses[0]!.body.toString()) as Answer;
    expect(answer.choices[0]?.message.content, what).toBe(JSON.stringify(messages));
  }

  test.skipIf(frontProgram(kind) === undefined)(
    'no request is hidden in another and no answer reaches another client',
    async () => {
      const clients: RawClient[] = [];
      for (const { name, bytes } of shapes) {
        const client = await RawClient.connect(front.port);
        clients.push(client);
        await client.send(bytes);
        for (let i = 0; i < canariesPerShape; i++) await canary(name);
      }
      let answeredByGateway = 0;
      for (const [i, client] of clients.entries()) {
        const { responses } = parseResponses(client.received, false);
        const { name, first } = shapes[i]!;
        const own = responses.filter((response) => expectOwn(response, name));
        // uWebSockets.js cannot see what is wrong with these, so the proxy must.
        if (first === 'trimmed') expect(own, `${name} was passed on`).toEqual([]);
        if (own.length > 0) answeredByGateway++;
        await client.close();
      }
      for (let i = 0; i < 20; i++) await canary('the last shape');
      await expectQuiet(gateway);
      const executed = posts();
      expect(hidden().map(({ body }) => body.toString())).toEqual([]);
      expect(new Set(executed.map(({ headers }) => headers['x-request-id'])).size).toBe(
        executed.length,
      );
      process.stdout.write(
        `T26 ${kind.name}: ${shapes.length} shapes, ${answeredByGateway} answered by the gateway; ` +
          `${executed.length} requests executed over ${relay.connections} connections, ` +
          `hidden requests executed: 0, answers crossed: 0 of ${canaries + answeredByGateway}\n`,
      );
      expect(answeredByGateway).toBeGreaterThan(shapes.length / 10);
      expect(relay.connections).toBeLessThan(executed.length / 2);

      // The detector sees a request that came without the proxy's id.
      await rawRequest(gateway.port, hiddenRequest);
      expect(hidden().length).toBe(1);
    },
  );
});
