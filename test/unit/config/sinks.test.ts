/** Servers that usage events go to: what their keys take, and what a file may not say. */
import { expect, test } from 'vitest';
import { configuredSinks } from '../../../src/config/sinks.ts';
import { load, loaded, models, problems } from './support.ts';

const usage = (keys: string): string => `usage: { file: u.ndjson, ${keys} }\n${models}`;
const kafka = (more = ''): string => `kafka: { brokers: ["k-1:9092"], topic: usage${more} }`;

test('none are there unless they are asked for', () => {
  expect(configuredSinks(loaded(models).usage)).toEqual([]);
  const all = `${kafka()}, redis_stream: { url: "redis://h" }, nats: { servers: ["nats://h:4222"] }`;
  expect(configuredSinks(loaded(usage(all)).usage)).toEqual(['kafka', 'redis_stream', 'nats']);
});

test.each([
  ['kafka: { brokers: [], topic: t }', 'usage.kafka.brokers: must have at least 1'],
  ['kafka: { brokers: ["h"], topic: t }', 'usage.kafka.brokers.0: must be a host and a port such'],
  [
    'kafka: { brokers: ["[::1]:9092"], topic: t }',
    'usage.kafka.brokers.0: must be a host and a port',
  ],
  [
    'kafka: { brokers: ["h:1"], topic: t, sasl: { mechanism: gssapi, username: u, password: p } }',
    'usage.kafka.sasl.mechanism: must be',
  ],
  [
    'kafka: { brokers: ["h:1"], topic: t, sasl: { mechanism: plain, username: u } }',
    'usage.kafka.sasl.password: ',
  ],
  [
    'kafka: { brokers: ["h:1"], topic: t, tls: { key: k } }',
    'usage.kafka.tls: must have cert and key',
  ],
  ['kafka: { brokers: ["h:1"], topic: "a b" }', 'usage.kafka.topic: must be 1 to 249 letters'],
  ['redis_stream: { url: "redis://u:p@h" }', 'redis_stream.url: must be a URL such as redis://'],
  ['redis_stream: { url: "http://h" }', 'redis_stream.url: must be a URL such as redis://'],
  ['nats: { servers: ["nats://u@h"] }', 'nats.servers.0: must be a URL such as nats://'],
  ['nats: { servers: ["nats://h"], subject: "a.>" }', 'nats.subject: must be words with dots'],
  ['nats: { servers: ["nats://h"], tls: { cert: a } }', 'nats.tls: must have cert and key'],
  ['nats: { servers: ["nats://10.0.0.7"], tls: {} }', 'nats.servers: must name servers by host'],
])('%s is refused', (keys, message) => {
  expect(problems(usage(keys))).toEqual([expect.stringContaining(message)]);
});

test('certificates are files beside the config, and are looked at', () => {
  const text = usage(kafka(', tls: { ca: ca.pem }'));
  expect(problems(text)).toEqual([
    expect.stringContaining('usage.kafka.tls.ca: names a file that cannot be read (ENOENT)'),
  ]);
  const files = { '/etc/sluice/ca.pem': '-----BEGIN CERTIFICATE-----' };
  expect(loaded(text, { files }).usage.kafka?.tls?.ca).toBe('/etc/sluice/ca.pem');
});

test('a password in the file is warned of, one in a variable is not', () => {
  const sasl = (password: string): string =>
    usage(kafka(`, sasl: { mechanism: plain, username: u, password: "${password}" }`));
  const literal = load(sasl('hunter2'));
  expect(literal.ok && literal.warnings.map(({ path }) => path)).toEqual([
    'usage.kafka.sasl.password',
  ]);
  const reference = `$${'{P}'}`;
  const world = { env: { P: 'hunter2' } };
  const referred = load(sasl(reference), world);
  expect(referred.ok && referred.warnings).toEqual([]);
  expect(referred.ok && referred.config.usage.kafka?.sasl?.password).toBe('hunter2');
});
