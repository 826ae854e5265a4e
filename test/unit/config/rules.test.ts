import { expect, test } from 'vitest';
import { rules } from '../../../src/config/rules.ts';
import { loaded, m, models, problems, url } from './support.ts';

const digest = (n: number): string => String(n).repeat(64);
const key = (id: string, n: number): string => `{ id: ${id}, sha256: "${digest(n)}" }`;

interface Case {
  readonly rule: string;
  readonly broken: string;
  readonly problems: readonly string[];
  /** As near to the broken text as a config can be that keeps the rule. */
  readonly kept: string;
}

const cases: readonly Case[] = [
  {
    rule: 'powers_of_two',
    broken: `memory: { slots: 1000, responses: 100 }\n${models}`,
    problems: [
      '1:18 memory.slots: must be a power of two',
      '1:35 memory.responses: must be a power of two',
    ],
    kept: `memory: { slots: 1024, responses: 128 }\n${models}`,
  },
  {
    rule: 'slot_for_each_acceptor',
    broken: `memory: { slots: 2 }\nthreads: { acceptors: 3 }\n${models}`,
    problems: ['1:18 memory.slots: must be at least threads.acceptors (3)'],
    kept: `memory: { slots: 4 }\nthreads: { acceptors: 3 }\n${models}`,
  },
  {
    rule: 'arena_holds_two_bodies',
    broken: `memory: { arena: 127MiB }\nthreads: { acceptors: 2 }\n${models}`,
    problems: [
      '1:18 memory.arena: must be at least 128MiB: for each acceptor 2 blocks of 32MiB, the power of two that holds listen.max_body and a head',
    ],
    kept: `memory: { arena: 128MiB }\nthreads: { acceptors: 2 }\n${models}`,
  },
  {
    rule: 'first_token_within_total',
    broken: `timeouts: { total: 90s, first_token: 91s }\n${models}`,
    problems: ['1:38 timeouts.first_token: must be at most timeouts.total (90s); it is 91s'],
    kept: `timeouts: { total: 90s, first_token: 90s }\n${models}`,
  },
  {
    rule: 'probe_ends_before_the_next',
    broken: `health: { interval: 500ms }\n${models}`,
    problems: ['1:1 health.timeout: must be at most health.interval (500ms)'],
    kept: `health: { interval: 1s }\n${models}`,
  },
  {
    rule: 'scrape_ends_before_the_next',
    broken: `engine_metrics: { interval: 200ms }\n${models}`,
    problems: ['1:1 engine_metrics.timeout: must be at most engine_metrics.interval (200ms)'],
    kept: `engine_metrics: { interval: 200ms, timeout: 200ms }\n${models}`,
  },
  {
    rule: 'ports_differ',
    broken: `listen: { port: 9090 }\n${models}`,
    problems: ['1:1 admin.port: must differ from listen.port'],
    kept: `listen: { port: 9090, host: 10.0.0.1 }\n${models}`,
  },
  {
    rule: 'open_admin_needs_token',
    broken: `admin: { host: 0.0.0.0 }\n${models}`,
    problems: ['1:16 admin.host: must be a loopback address while admin.token is empty'],
    kept: `admin: { host: 0.0.0.0, token: t }\n${models}`,
  },
  {
    rule: 'model_names_unique',
    broken: `models: [${m('a', url(1), ', aliases: [b]')}, ${m('b', url(2))}]`,
    problems: [expect.stringMatching(/models\.1\.name: is the same as models\.0\.aliases\.0$/)],
    kept: `models: [${m('a', url(1), ', aliases: [B]')}, ${m('b', url(2))}]`,
  },
  {
    rule: 'adapters_fit_the_table',
    broken: `models: [${m('a', withAdapters(255, 2))}]`,
    problems: [
      expect.stringMatching(/^1:\d+ models\.0\.replicas: must have at most 256 adapters in all$/),
    ],
    kept: `models: [${m('a', withAdapters(255, 1))}]`,
  },
  {
    rule: 'lora_replicas_of_one_model',
    broken: `models: [${m('a', url(1))}, ${m('b', url(1), ', lora: { adapters: [{ name: x, path: /x }] }')}]`,
    problems: [
      expect.stringMatching(
        /models\.1\.replicas\.0\.url: is a replica of models\.0 too, which a model with lora may not share$/,
      ),
    ],
    kept: `models: [${m('a', url(1))}, ${m('b', url(2), ', lora: { adapters: [{ name: x, path: /x }] }')}]`,
  },
  {
    rule: 'replica_names_unique',
    broken: `models: [${m('a', url(1, ', name: x'))}, ${m('b', url(2, ', name: x'))}]`,
    problems: [
      expect.stringMatching(
        /models\.1\.replicas\.0\.name: is the same as models\.0\.replicas\.0\.name$/,
      ),
    ],
    kept: `models: [${m('a', url(1, ', name: x'))}, ${m('b', url(2, ', name: y'))}]`,
  },
  {
    rule: 'replica_urls_unique_in_model',
    broken: `models: [${m('a', `${url(1)}, { url: "HTTP://H:1/" }`)}]`,
    problems: [
      expect.stringMatching(
        /models\.0\.replicas\.1\.url: is the same as models\.0\.replicas\.0\.url$/,
      ),
    ],
    kept: `models: [${m('a', url(1))}, ${m('b', url(1))}]`,
  },
  {
    rule: 'replicas_fit_the_table',
    broken: `models: [${m('a', manyUrls(200))}, ${m('b', manyUrls(57))}]`,
    problems: ['1:1 models: must have at most 256 replicas in all'],
    kept: `models: [${m('a', manyUrls(200))}, ${m('b', manyUrls(56))}]`,
  },
  {
    rule: 'model_has_weight',
    broken: `models: [${m('a', `${url(1, ', weight: 0')}, ${url(2, ', weight: 0')}`)}]`,
    problems: [
      expect.stringMatching(/models\.0\.replicas: must have a replica with a weight above 0$/),
    ],
    kept: `models: [${m('a', `${url(1, ', weight: 0')}, ${url(2, ', weight: 0.1')}`)}]`,
  },
  {
    rule: 'tenants_and_keys_unique',
    broken: `tenants: [{ name: t, keys: [${key('a', 1)}, ${key('a', 2)}] }, { name: t, keys: [${key('a', 1)}] }]\n${models}`,
    problems: [
      expect.stringMatching(/tenants\.0\.keys\.1\.id: is the same as tenants\.0\.keys\.0\.id$/),
      expect.stringMatching(/tenants\.1\.name: is the same as tenants\.0\.name$/),
      expect.stringMatching(
        /tenants\.1\.keys\.0\.sha256: is the same as tenants\.0\.keys\.0\.sha256$/,
      ),
    ],
    kept: `tenants: [{ name: t, keys: [${key('a', 1)}, ${key('b', 2)}] }, { name: u, keys: [${key('a', 3)}] }]\n${models}`,
  },
  {
    rule: 'allowed_models_exist',
    broken: `tenants: [{ name: t, models: [a, x], model_limits: { b: {} }, keys: [{ id: k, sha256: "${digest(1)}", models: [y] }] }]\nmodels: [${m('a', url(1))}]`,
    problems: [
      expect.stringMatching(/tenants\.0\.models\.1: is no model, alias, adapter or split$/),
      expect.stringMatching(/tenants\.0\.model_limits\.b: is the name of no model$/),
      expect.stringMatching(
        /tenants\.0\.keys\.0\.models\.0: is no model, alias, adapter or split$/,
      ),
    ],
    kept: `tenants: [{ name: t, models: [a, b, c, s, t] }]\nsplits: [{ name: s, aliases: [t], models: [{ model: a }] }]\nmodels: [${m('a', url(1, ', adapters: [c]'), ', aliases: [b]')}]`,
  },
  {
    rule: 'splits_name_models',
    broken: `splits: [{ name: s, models: [{ model: a }, { model: t }, { model: a }] }, { name: t, models: [{ model: a, weight: 0 }] }]\nmodels: [${m('a', url(1))}]`,
    problems: [
      expect.stringMatching(/splits\.0\.models\.1\.model: is no model, alias or adapter$/),
      expect.stringMatching(
        /splits\.0\.models\.2\.model: is the same as splits\.0\.models\.0\.model$/,
      ),
      expect.stringMatching(/splits\.1\.models: must have a model with a weight above 0$/),
    ],
    kept: `splits: [{ name: s, models: [{ model: a, weight: 0 }, { model: c }] }]\nmodels: [${m('a', url(1, ', adapters: [c]'))}]`,
  },
  {
    rule: 'fallbacks_are_other_models',
    broken: `splits: [{ name: s, models: [{ model: a }] }]\nmodels: [${m('a', url(1, ', adapters: [l]'), ', fallbacks: [b, s, l, b], context_window_fallbacks: [a]')}, ${m('b', url(2))}]`,
    problems: [
      expect.stringMatching(/models\.0\.fallbacks\.1: is no model, alias or adapter$/),
      expect.stringMatching(/models\.0\.fallbacks\.2: must be another model$/),
      expect.stringMatching(/models\.0\.fallbacks\.3: is the same as models\.0\.fallbacks\.0$/),
      expect.stringMatching(/models\.0\.context_window_fallbacks\.0: must be another model$/),
    ],
    kept: `models: [${m('a', url(1), ', fallbacks: [b, l], context_window_fallbacks: [b]')}, ${m('b', url(2, ', adapters: [l]'), ', fallbacks: [a]')}]`,
  },
  {
    rule: 'fallbacks_fetch_no_more_media',
    broken: `models: [${m('a', url(1), ', fallbacks: [b], allowed_media_domains: ["*"]')}, ${m('b', url(2), ', allowed_media_domains: [x.y], context_window_fallbacks: [c]')}, ${m('c', url(3))}]`,
    problems: [
      expect.stringMatching(
        /models\.0\.fallbacks\.0: has a narrower allowed_media_domains than the model that falls back to it$/,
      ),
      expect.stringMatching(/models\.1\.context_window_fallbacks\.0: has a narrower/),
    ],
    kept: `models: [${m('a', url(1), ', fallbacks: [b], allowed_media_domains: [x.y]')}, ${m('b', url(2), ', allowed_media_domains: [z, x.y], context_window_fallbacks: [c]')}, ${m('c', url(3), ', allowed_media_domains: ["*"]')}]`,
  },
  {
    rule: 'cascade_goes_to_another_model',
    broken: `models: [${m('a', url(1), ', aliases: [x], cascade: { model: x }')}, ${m('b', url(2), ', cascade: { model: c }')}]`,
    problems: [
      expect.stringMatching(/models\.0\.cascade\.model: must be another model$/),
      expect.stringMatching(/models\.1\.cascade\.model: is no model, alias or adapter$/),
    ],
    kept: `models: [${m('a', url(1), ', cascade: { model: b }')}, ${m('b', url(2))}]`,
  },
  {
    rule: 'cascade_judges_by_something',
    broken: `models: [${m('a', url(1), ', cascade: { model: b, on_reply: { finish_reasons: [] } }')}, ${m('b', url(2))}]`,
    problems: [
      expect.stringMatching(/models\.0\.cascade\.on_reply: must say which replies are discarded$/),
    ],
    kept: `models: [${m('a', url(1), ', cascade: { model: b, on_reply: { mean_logprob_below: 0 } }')}, ${m('b', url(2))}]`,
  },
  {
    rule: 'cascade_of_tenant_has_a_model',
    broken: `tenants: [{ name: t, cascade: small }]\n${models}`,
    problems: [
      expect.stringMatching(
        /tenants\.0\.cascade: is for models with a cascade, and there are none$/,
      ),
    ],
    kept: `tenants: [{ name: t, cascade: small }, { name: u }]\nmodels: [${m('a', url(1), ', cascade: { model: b }')}, ${m('b', url(2))}]`,
  },
  {
    rule: 'attempts_fit_the_slot',
    broken: `retry: { max_attempts: 10 }\nmodels: [${m('a', url(1), ', fallbacks: [b, c, d], context_window_fallbacks: [b]')}, ${['b', 'c', 'd'].map((name) => m(name, url(2))).join(', ')}]`,
    problems: [
      expect.stringMatching(
        /models\.0\.fallbacks: must be at most 3 with the context_window_fallbacks: retry\.max_attempts is of each$/,
      ),
    ],
    kept: `retry: { max_attempts: 10 }\nmodels: [${m('a', url(1), ', fallbacks: [b, c, d]')}, ${['b', 'c', 'd'].map((name) => m(name, url(2))).join(', ')}]`,
  },
  {
    rule: 'store_has_an_address',
    broken: `limits: { store: redis, redis: { mode: sentinel, urls: ["redis://h:1/3"] } }\n${models}`,
    problems: [
      expect.stringMatching(/limits\.redis\.master: is needed for `mode: sentinel`$/),
      expect.stringMatching(/limits\.redis\.urls\.0: has a database, which only `single` has$/),
    ],
    kept: `limits: { store: redis, redis: { urls: ["redis://h:1/3"] } }\n${models}`,
  },
  {
    rule: 'limits_fit_the_table',
    broken: `tenants: [${manyTenants(9000)}]\n${models}`,
    problems: [expect.stringMatching(/tenants: must have at most 16384 limits in all$/)],
    kept: `tenants: [${manyTenants(8000)}]\n${models}`,
  },
  {
    rule: 'ledger_has_a_file',
    broken: `usage: { file: usage, nats: { servers: ["nats://h:4222"] } }\n${models}`,
    problems: [
      '1:16 usage.file: must name a file with an ending such as usage.ndjson: usage.nats reads it',
    ],
    kept: `usage: { file: usage.ndjson, nats: { servers: ["nats://h:4222"] } }\n${models}`,
  },
  {
    rule: 'budgets_have_prices',
    broken: `usage: { file: u.ndjson }\ntenants: [{ name: a, budget: { day: 5 } }]\n${models}`,
    problems: ['2:22 tenants.0.budget: needs a model with a price'],
    kept: `usage: { file: u.ndjson }\ntenants: [{ name: a, budget: { day: 5 } }]\nmodels: [${m('a', url(1), ', price: { output: 1 }')}]`,
  },
];

/** Each with limits, and with some for the one model. */
function manyTenants(count: number, ofModel = 'concurrency: 1'): string {
  const one = (n: number): string =>
    `{ name: t${n}, limits: { requests_per_minute: 1 }, model_limits: { m: { ${ofModel} } } }`;
  return Array.from({ length: count }, (_, n) => one(n)).join(', ');
}

function manyUrls(count: number): string {
  return Array.from({ length: count }, (_, index) => url(index + 1)).join(', ');
}

/** Two replicas that share the adapter a0 and have so many others. */
function withAdapters(first: number, second: number): string {
  const list = (from: number, count: number): string =>
    Array.from({ length: count }, (_, i) => `, a${from + i}`).join('');
  const one = url(1, `, adapters: [a0${list(1, first - 1)}]`);
  return `${one}, ${url(2, `, adapters: [a0${list(first, second)}]`)}`;
}

test('caps of single requests take no room in the table of limits', () => {
  const capped = manyTenants(9000, 'max_n: 1, max_context: 1');
  expect(problems(`tenants: [${capped}]\n${models}`)).toEqual([]);
});

test.each(cases)('$rule', ({ broken, problems: expected, kept }) => {
  expect(problems(broken)).toEqual(expected);
  expect(problems(kept)).toEqual([]);
});

test.each([
  ['', 'limits.redis.urls: is needed for `store: redis`'],
  [
    'urls: ["redis://a:1", "redis://b:1"]',
    'limits.redis.urls: has one address unless `mode` is cluster or sentinel',
  ],
  [
    'mode: cluster, urls: ["redis://a:1", "rediss://b:1"]',
    'limits.redis.urls: must be all with TLS (rediss://) or all without',
  ],
  [
    'urls: ["redis://:pa%ss@a"]',
    'limits.redis.urls.0: must be redis://host:port or, for TLS, rediss://host:port',
  ],
  [
    'urls: ["http://a"]',
    'limits.redis.urls.0: must be redis://host:port or, for TLS, rediss://host:port',
  ],
  [
    'urls: ["redis://a:port"]',
    'limits.redis.urls.0: must be redis://host:port or, for TLS, rediss://host:port',
  ],
])('a store with %s is refused', (redis, problem) => {
  const found = problems(`limits: { store: redis, redis: { ${redis} } }\n${models}`);
  expect(found).toEqual([expect.stringContaining(problem)]);
});

test('every rule has its case', () => {
  expect(cases.map(({ rule }) => rule).sort()).toEqual(rules.map(({ name }) => name).sort());
});

test('a rule still runs while a section it does not read is broken', () => {
  expect(problems(`memory: { slots: 1000 }\nqueue: { max: -1 }\n${models}`)).toEqual([
    '1:18 memory.slots: must be a power of two',
    '2:15 queue.max: must be at least 0',
  ]);
});

test('a rule stays silent while a section it reads is broken', () => {
  expect(problems(`memory: { slots: 1000, arena: 1 }\n${models}`)).toEqual([
    '1:31 memory.arena: must be a size such as 512B, 64KiB, 16MiB or 1GiB',
  ]);
});

test('the largest body there may be has an arena', () => {
  const text = `listen: { max_body: 511MiB }\nmemory: { arena: 1GiB }\n${models}`;
  expect(problems(text)).toEqual([]);
});

test('port 0 may be asked for twice', () => {
  expect(loaded(`listen: { port: 0 }\nadmin: { port: 0 }\n${models}`).admin.port).toBe(0);
});

test.each([
  ['http://h:1/openai/v1?api-version=1', 'must not contain a query or a fragment'],
  ['http://h:1/openai/v1#x', 'must not contain a query or a fragment'],
  ['http://user:pass@h:1/v1', 'must not contain credentials; use api_key'],
  ['http://h:1/openai//v1', 'must not have an empty segment in its path'],
  ['http://h:1//v1/', 'must not have an empty segment in its path'],
  ['http://h:1/v1/chat/completions', 'must be the base of all requests, without /chat/completions'],
  ['http://h:1/openai/v1/models/', 'must be the base of all requests, without /models'],
  ['http://user@h:1', 'must not contain credentials; use api_key'],
  ['http://h:1/?', 'must not contain a query or a fragment'],
  ['http://h:1/#', 'must not contain a query or a fragment'],
  ['http://h:0', 'must not have port 0'],
  ['file:///etc/passwd', 'must be http or https'],
  ['h:8000', 'must be http or https'],
  ['//h:8000', 'must be a URL such as http://10.0.0.7:8000'],
  ['http://h:99999', 'must be a URL such as http://10.0.0.7:8000'],
  ['http://2852039166', 'must not be a link-local, metadata, multicast or unspecified address'],
])('the replica url %s is refused', (text, message) => {
  expect(problems(`models: [{ name: m, replicas: [{ url: "${text}" }] }]`)).toEqual([
    `1:39 models.0.replicas.0.url: ${message}`,
  ]);
});

test.each([
  ['http://h:1/', 'http://h:1'],
  ['http://h:1/v1', 'http://h:1'],
  ['http://h:1/v1/', 'http://h:1'],
  ['https://API.groq.com:443/openai/v1', 'https://api.groq.com/openai/v1'],
  ['https://h/v1beta/openai/', 'https://h/v1beta/openai'],
  ['https://h/api/paas/v4//', 'https://h/api/paas/v4'],
  ['https://h/a/../b/./v1', 'https://h/b/v1'],
])('the replica url %s is kept as %s', (text, kept) => {
  const { models: read } = loaded(`models: [{ name: m, replicas: [{ url: "${text}" }] }]`);
  expect(read[0]?.replicas[0]?.url).toBe(kept);
});

test('two spellings of one place are one replica, two paths of one host are two', () => {
  const of = (first: string, second: string): string =>
    `models: [{ name: m, replicas: [{ url: "${first}" }, { url: "${second}" }] }]`;
  expect(problems(of('http://h:1', 'http://h:1/v1/'))).toHaveLength(1);
  expect(problems(of('http://h:1/a/v1', 'http://h:1/b/v1'))).toEqual([]);
});
