import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { configFromFlags, configFromObject, loadConfig } from '../../../src/config/load.ts';
import { load, loaded, models, problems } from './support.ts';

test('a file with models only has every other key at its default', () => {
  expect(loaded(models)).toEqual({
    listen: {
      host: '0.0.0.0',
      port: 8080,
      engine: 'auto',
      max_body: 16 * 1024 * 1024,
      max_connections: 10_000,
    },
    admin: { host: '127.0.0.1', port: 9090, token: '', audit_log: '' },
    threads: { acceptors: 1, forwarders: 1 },
    memory: { slots: 8192, arena: 256 * 1024 * 1024, stream_window: 65_536, responses: 65_536 },
    degrade: { memory: 'auto', descriptors: true },
    drain: { timeout: 30_000, settle: 0 },
    restart: { timeout: 60_000 },
    timeouts: {
      queue: 30_000,
      connect: 2000,
      first_token: 120_000,
      answer: 600_000,
      inter_token: 30_000,
      total: 600_000,
    },
    streams: { keep_alive: 15_000 },
    health: {
      path: '/v1/models',
      interval: 5000,
      timeout: 1000,
      unhealthy_after: 2,
      healthy_after: 1,
      ...{ stall: 0, token_timeout: 5000 },
    },
    engine_metrics: { interval: 0, timeout: 500, path: '/metrics' },
    queue: { max: 1000, hold_tokens: 0 },
    breaker: {
      ...{ mode: 'window', window: 10, failure_rate: 0.5, consecutive: 5, open: 5000 },
      ...{ max_ejected: 0.5, panic_below: 0.5 },
    },
    slow_start: 10_000,
    retry: { max_attempts: 3, budget: 0.2, budget_min: 3 },
    scheduler: { seed: 0 },
    hedge: { automatic: false, budget: 0.02 },
    log: { level: 'info', sample: 0.01, pretty: 'auto' },
    usage: { file: '', max_size: 67_108_864, keep: 10, buffer: 16_777_216, currency: 'USD' },
    metrics: { tenants: 100, genai: false },
    tracing: {
      ...{ endpoint: '', sample: 0.01, max_per_second: 200, service_name: 'sluice', headers: {} },
    },
    requests: {
      ...{ max_n: 128, max_tokens_cap: 0, max_logprobs: 0, max_stop: 0, max_prompts: 2048 },
      allow: ['chat_template_kwargs', 'cache_salt'],
    },
    tokenizers: { threads: 1, queue: 64, timeout: 1000 },
    auth: { keys: 'auto' },
    limits: {
      store: 'local',
      redis: {
        ...{ mode: 'single', urls: [], master: '', username: '', password: '' },
        ...{ prefix: 'sluice:', timeout: 50 },
      },
      ...{ failure_mode: 'open', gateways: 1 },
    },
    tenants: [],
    splits: [],
    models: [
      {
        name: 'm',
        aliases: [],
        fallbacks: [],
        context_window_fallbacks: [],
        policy: 'marginal_cost',
        session_affinity: true,
        continuation: 'off',
        continuation_max: 64 * 1024,
        stream_usage: 'auto',
        allowed_media_domains: [],
        max_context: 0,
        replicas: [
          {
            url: 'http://127.0.0.1:9001',
            name: 'r1',
            weight: 1,
            max_in_flight: 256,
            api_key: '',
            api_key_header: 'authorization',
            headers: {},
            prefill_us: 21.2,
            resident_us: 0.06,
            kv_tokens: 0,
            adapters: [],
          },
        ],
      },
    ],
  });
});

test('the example of the documentation spells out exactly the defaults', () => {
  const path = resolve(import.meta.dirname, '../../../docs/examples/sluice.yaml');
  const example = loadConfig(readFileSync(path, 'utf8'), path, {}, () => '');
  if (!example.ok) throw new Error(JSON.stringify(example.problems));
  const { models: exampleModels, ...sections } = example.config;
  const { models: _, ...defaults } = loaded(models);
  expect(sections).toEqual(defaults);
  expect(exampleModels).toMatchObject([{ name: 'llama-3-8b', replicas: [{}, {}] }]);
  expect(example.warnings).toEqual([]);
});

test('the example of usage is a config without a problem or a warning', () => {
  const path = resolve(import.meta.dirname, '../../../docs/examples/usage.yaml');
  const env = { KAFKA_PASSWORD: 'a', REDIS_PASSWORD: 'b', NATS_TOKEN: 'c' };
  const example = loadConfig(
    readFileSync(path, 'utf8'),
    path,
    { ...env, ACME_KEY_SHA256: '0'.repeat(64) },
    () => '',
  );
  if (!example.ok) throw new Error(JSON.stringify(example.problems));
  expect(example.config.usage).toMatchObject({ kafka: {}, redis_stream: {}, nats: {} });
  expect(example.warnings).toEqual([]);
});

test('a loaded config is frozen to its leaves', () => {
  const config = loaded(models);
  expect(Object.isFrozen(config)).toBe(true);
  expect(Object.isFrozen(config.models[0]?.replicas[0])).toBe(true);
  expect(() => Object.assign(config.queue, { max: 1 })).toThrow(TypeError);
});

test('JSON with tabs is a config file too', () => {
  const text = `{\n\t"queue": { "max": 7 },\n\t"models": [{"name": "m", "replicas": [{"url": "http://h:1"}]}]\n}`;
  expect(loaded(text).queue.max).toBe(7);
});

test('unnamed replicas take the first free names in the order of the file', () => {
  const config = loaded(`
models:
  - { name: a, replicas: [{ url: "http://h:1" }, { url: "http://h:2", name: r1 }] }
  - { name: b, replicas: [{ url: "http://h:3" }, { url: "http://h:1" }] }
`);
  const names = config.models.map((model) => model.replicas.map(({ name }) => name));
  expect(names).toEqual([
    ['r2', 'r1'],
    ['r3', 'r4'],
  ]);
});

test('a replica url is loaded as its origin', () => {
  const config = loaded('models: [{ name: m, replicas: [{ url: "HTTPS://Gpu-1.Example:443/" }] }]');
  expect(config.models[0]?.replicas[0]?.url).toBe('https://gpu-1.example');
});

test('every problem is found at once, at its line and with the key that was meant', () => {
  const text = `listen: { host: 0.0.0.0, prot: 8080, max_body: 16MB }
timeuots: { queue: 30s }
memory: { slots: 8191 }
log:
models:
  - name: llama
    policy: least_inflight
    replcias: []
  - name: b
    replicas:
      - { url: "ftp://h:1", weight: -1 }
`;
  expect(problems(text)).toEqual([
    '1:26 listen.prot: unknown key (did you mean "port"?)',
    '1:48 listen.max_body: must be a size such as 512B, 64KiB, 16MiB or 1GiB',
    '2:1 timeuots: unknown key (did you mean "timeouts"?)',
    '3:18 memory.slots: must be a power of two',
    '4:5 log: has no value',
    '6:5 models.0.replicas: is required',
    '7:13 models.0.policy: must be one of round_robin, random, least_in_flight, power_of_two, weighted_least_connections, prefix_affinity, cache_aware, lmetric, min_ttft, marginal_cost (did you mean "least_in_flight"?)',
    '8:5 models.0.replcias: unknown key (did you mean "replicas"?)',
    '11:16 models.1.replicas.0.url: must be http or https',
    '11:37 models.1.replicas.0.weight: must be at least 0',
  ]);
});

test.each([
  ['queue: { max: 1, max: 2 }', '1:18: this key is given twice'],
  [
    'queue: { max: 1',
    '1:16: the indentation does not fit the lines above, or a bracket is not closed',
  ],
  ['queue: *nothing', '1:8: this alias has no anchor before it'],
  ['queue: !!js/function "x"', '1:8: this tag is not known'],
  ['? [a, b]\n: 1', '1:3: a key must be text'],
  ['a: 1\n---\nb: 2', '2:1: the file must hold one document'],
  ['queue:\n\tmax: 1', '2:1: tabs cannot indent'],
  [`a: ${'['.repeat(200_000)}`, expect.stringContaining('the nesting is too deep')],
  ['#'.repeat(8_388_609), '1:1: the file is larger than 8388608 characters'],
])('text that is no YAML says where: %#', (text, first) => {
  expect(problems(text)[0]).toEqual(first);
});

test('an alias bomb is refused before it is expanded', () => {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
  for (let i = 1; i < 12; i++) lines.push(`a${i}: &a${i} [${`*a${i - 1}, `.repeat(10)}x]`);
  expect(problems(lines.join('\n'))).toEqual([
    '1:1: an alias holds itself, or aliases repeat more than 100 values',
  ]);
});

test('an alias that holds itself is refused', () => {
  expect(problems('queue: &a { max: *a }').length).toBeGreaterThan(0);
});

test('an alias points to the line where its value stands', () => {
  const text = `admin: &a { prot: 1 }\nlisten: *a\n${models}`;
  expect(problems(text)).toEqual([
    '1:13 listen.prot: unknown key (did you mean "port"?)',
    '1:13 admin.prot: unknown key (did you mean "port"?)',
  ]);
});

test('an empty file, and a file that is no mapping, say what is missing', () => {
  expect(problems('')).toEqual(['1:1 models: is required']);
  expect(problems('# only a comment\n')).toEqual(['1:1 models: is required']);
  expect(problems('models')).toEqual(['1:1: must be a mapping of keys']);
  expect(problems('models: []')).toEqual(['1:1 models: must have at least 1 entries']);
});

test('keys that JavaScript treats specially are plain unknown keys', () => {
  const text = `__proto__: { x: 1 }\nconstructor: 1\nqueue: { toString: 1 }\n${models}`;
  expect(problems(text)).toEqual([
    '1:1 __proto__: unknown key',
    '2:1 constructor: unknown key',
    '3:10 queue.toString: unknown key',
  ]);
});

test('a key cannot steer the terminal it is printed on', () => {
  const [problem] = problems(`"\\e[2J\\u202e${'k'.repeat(100)}": 1\n${models}`);
  expect(problem).toBe(`1:1 ?[2J?${'k'.repeat(59)}…: unknown key`);
});

test('at most a hundred problems are reported', () => {
  const keys = Array.from({ length: 5000 }, (_, index) => `zzzz${index}: 1`).join('\n');
  expect(problems(`${keys}\n${models}`)).toHaveLength(100);
});

test('TLS files are found beside the config file and must be PEM', () => {
  const pem = '-----BEGIN CERTIFICATE-----\n';
  const text = `listen: { tls: { cert: tls/cert.pem, key: /keys/key.pem } }\n${models}`;
  const files = { '/etc/sluice/tls/cert.pem': pem, '/keys/key.pem': pem };
  expect(loaded(text, { files }).listen.tls).toEqual({
    cert: '/etc/sluice/tls/cert.pem',
    key: '/keys/key.pem',
  });
  expect(problems(text, { files: { '/keys/key.pem': 'no pem' } })).toEqual([
    '1:24 listen.tls.cert: names a file that cannot be read (ENOENT)',
    '1:43 listen.tls.key: must name a PEM file',
  ]);
});

test('flags make one model with every default', () => {
  const result = configFromFlags({ replicas: ['http://h:1', 'http://h:2'], model: 'm' });
  if (!result.ok) throw new Error('refused');
  expect(result.config).toEqual(
    loaded('models: [{ name: m, replicas: [{ url: "http://h:1" }, { url: "http://h:2" }] }]'),
  );
  const bad = configFromFlags({ replicas: ['http://h:1/v1/models'], model: 'm' });
  expect(bad).toMatchObject({
    ok: false,
    problems: [{ file: 'command line', line: 0, path: 'models.0.replicas.0.url' }],
  });
});

test('an object is checked like a file, and nothing in it is expanded', () => {
  const result = configFromObject({
    models: [{ name: 'm', replicas: [{ url: 'http://h:1', api_key: `$\{HOME}` }] }],
  });
  if (!result.ok) throw new Error('refused');
  expect(result.config.models[0]?.replicas[0]?.api_key).toBe(`$\{HOME}`);
});

test('a secret written into the file is a warning that does not show it', () => {
  const text = models.replace('" }', '", api_key: hunter2 }');
  const result = load(text);
  if (!result.ok) throw new Error('refused');
  expect(result.warnings).toMatchObject([{ line: 1, path: 'models.0.replicas.0.api_key' }]);
  expect(JSON.stringify(result.warnings)).not.toContain('hunter2');
});

test('a word where a key knows one, in place of its quantity', () => {
  expect(loaded(`streams: { keep_alive: off }\n${models}`).streams.keep_alive).toBe('off');
  expect(loaded(`streams: { keep_alive: 5s }\n${models}`).streams.keep_alive).toBe(5000);
  const form = 'must be a duration such as 500us, 5ms, 30s, 2m or 1h, or off';
  expect(problems(`streams: { keep_alive: never }\n${models}`)).toEqual([
    `1:24 streams.keep_alive: ${form}`,
  ]);
  expect(problems(`streams: { keep_alive: 5ms }\n${models}`)).toEqual([
    '1:24 streams.keep_alive: must be between 100ms and 10m, or off',
  ]);
  expect(problems(`timeouts: { queue: off }\n${models}`).length).toBe(1);
});

const domains = (list: string): string =>
  `models: [{ name: m, allowed_media_domains: [${list}], replicas: [{ url: "http://h:1" }] }]`;

test('hosts for media are spelled as a URL has them', () => {
  const good = '"*", localhost, img.example.com, 10.0.0.1, xn--mnchen-3ya.de, "[::1]"';
  expect(loaded(domains(good)).models[0]?.allowed_media_domains).toHaveLength(6);
});

test.each(['"[0:0:0:0:0:0:0:1]"', '"010.0.0.1"', '"1.2.3.4.5"', '"a..b"', '"a:1"', 'A', '"xn--a"'])(
  '%s could match no host and is refused',
  (host) => {
    expect(problems(domains(host))).toEqual([
      expect.stringContaining('must be a host in lower case without scheme or port'),
    ]);
  },
);
