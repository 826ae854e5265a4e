/** Configs that are valid and do not do what they say: warned of where they say it. */
import { expect, test } from 'vitest';
import { configFromObject } from '../../../src/config/load.ts';
import { formatProblem } from '../../../src/config/problems.ts';
import { load } from './support.ts';

const sha256 = 'ab'.repeat(32);
const other = 'cd'.repeat(32);
const key = (more = '', digest = sha256): string => `{ id: one, sha256: ${digest}${more} }`;
const model = (name: string, more = ''): string =>
  `  - { name: ${name}${more}, replicas: [{ url: "http://127.0.0.1:9001", name: r-${name} }] }\n`;
const models = (...rows: string[]): string => `models:\n${rows.join('')}`;
const priced = (name: string, more = ''): string => model(name, `, price: { output: 1 }${more}`);
const usage = 'usage: { file: u.ndjson }\n';
const redis = (more = ''): string =>
  `limits: { store: redis, redis: { urls: ["redis://h"] }${more} }\n`;
const tenant = (more = '', digest = sha256): string =>
  `tenants:\n  - { name: t, keys: [${key('', digest)}]${more} }\n`;

function warnings(text: string): string[] {
  const result = load(text);
  if (!result.ok) throw new Error(result.problems.map(formatProblem).join('\n'));
  return result.warnings.map((each) => formatProblem(each).replace(/^.*sluice\.yaml:/, ''));
}

test.each([
  [`auth: { keys: off }\n${tenant()}${models(model('m'))}`, '1:15 auth.keys: is `off`: nobody is'],
  [
    `tenants:\n  - { name: t }\n${models(model('m'))}`,
    '2:5 tenants.0: has no key: nobody is let in',
  ],
  [
    `tenants:\n  - name: t\n    models: [m]\n    keys: [${key(', models: [n]')}]\n${models(model('m'), model('n'))}`,
    'tenants.0.keys.0.models: names none of the models of its tenant',
  ],
  [
    `${usage}${tenant(', budget: { day: 1 }')}${models(priced('m'), model('n'), model('o'))}`,
    'tenants.0.budget: is never spent by requests for models without a price: models.1 and 1 more',
  ],
  [
    `${usage}${tenant(', budget: { day: 1 }, models: [a]')}${models(priced('m'), model('n', ', aliases: [a]'))}`,
    'tenants.0.budget: is never spent by requests for models without a price: models.1',
  ],
  [
    `${tenant(', models: [m], model_limits: { n: { concurrency: 1 } }')}${models(model('m'), model('n'))}`,
    'tenants.0.model_limits.n: is for a model that the tenant may not use',
  ],
  [
    `${tenant(', models: [m], model_limits: { n: { max_n: 1 } }')}${models(model('m'), model('n'))}`,
    'tenants.0.model_limits.n: is for a model that the tenant may not use',
  ],
  [
    `${tenant(', limits: { max_n: 2 }, model_limits: { m: { max_n: 3, max_context: 9 } }')}${models(model('m'))}`,
    '2:161 tenants.0.model_limits.m.max_n: does nothing: `limits.max_n` of the tenant is smaller',
  ],
  [
    `${tenant(', limits: { max_context: 8 }, model_limits: { m: { max_context: 9 } }')}${models(model('m'))}`,
    'tenants.0.model_limits.m.max_context: does nothing: `limits.max_context` of the tenant',
  ],
  [
    `${tenant(', model_limits: { m: { max_n: 2, burst: 10s } }')}${models(model('m'))}`,
    'tenants.0.model_limits.m.burst: does nothing without a limit per minute',
  ],
  [
    `${tenant(', limits: { concurrency: 1, burst: 10s }')}${models(model('m'))}`,
    'tenants.0.limits.burst: does nothing without a limit per minute',
  ],
  [
    `${tenant(', limits: { concurrency: 1 }, failure_mode: closed')}${models(model('m'))}`,
    'tenants.0.failure_mode: does nothing without `limits.store: redis`',
  ],
  [
    `${redis(', gateways: 2')}tenants:\n  - { name: a, keys: [${key()}], limits: { requests_per_minute: 1 } }\n  - { name: b, keys: [${key('', other)}], failure_mode: open }\n${models(model('m'))}`,
    'tenants.1.failure_mode: does nothing: the tenant has neither limits that are counted nor a budget',
  ],
  [
    `${redis(', gateways: 2')}tenants:\n  - { name: a, keys: [${key()}], limits: { requests_per_minute: 1 } }\n  - { name: b, keys: [${key('', other)}], failure_mode: open, model_limits: { m: { max_n: 1 } } }\n${models(model('m'))}`,
    'tenants.1.failure_mode: does nothing: the tenant has neither limits that are counted',
  ],
  [
    `${redis()}${tenant()}${models(model('m'))}`,
    '1:18 limits.store: does nothing: no tenant has limits per minute or a budget',
  ],
  [
    `${redis()}${tenant(', limits: { requests_per_minute: 1 }')}${models(model('m'))}`,
    '1:18 limits.store: is shared with `failure_mode: open` and without `limits.gateways`',
  ],
  [`limits: { gateways: 2 }\n${models(model('m'))}`, '1:21 limits.gateways: does nothing without'],
  [
    models(model('m', ', lora: { load_timeout: 30s }')),
    'models.0.lora.load_timeout: is not below `timeouts.queue`',
  ],
  [models(priced('m')), 'models.0.price: does nothing without `usage.file`'],
  [
    `usage: { keep: 3 }\n${models(model('m'))}`,
    '1:16 usage.keep: does nothing without `usage.file`',
  ],
  [
    `breaker: { mode: consecutive, window: 5 }\n${models(model('m'))}`,
    'breaker.window: does nothing without `breaker.mode: window`',
  ],
  [
    `hedge: { budget: 0.1 }\n${models(model('m'))}`,
    'hedge.budget: does nothing without `hedge.automatic: true`',
  ],
  [
    `health: { token_timeout: 1s }\n${models(model('m'))}`,
    'health.token_timeout: does nothing without a `health.stall`',
  ],
  [
    `engine_metrics: { path: /m }\n${models(model('m'))}`,
    'engine_metrics.path: does nothing without an `engine_metrics.interval`',
  ],
  [
    `tokenizers: { threads: 2 }\n${models(model('m'))}`,
    'tokenizers: does nothing without a model with a `tokenizer`',
  ],
])('%s', (text, expected) => {
  expect(warnings(text)).toEqual([expect.stringContaining(expected)]);
});

const limited = tenant(', limits: { requests_per_minute: 1, burst: 5s }, failure_mode: closed');
test.each([
  [models(model('m'))],
  // Its default written down is nothing that anybody waits for.
  [`hedge: { automatic: false, budget: 0.02 }\nlimits: { gateways: 1 }\n${models(model('m'))}`],
  [`auth: { keys: off }\n${models(model('m'))}`],
  // Keys may come by the admin listener.
  [`admin: { token: "$\{T:-x}" }\ntenants: [{ name: t }]\n${models(model('m'))}`],
  [`${redis()}${limited}${models(model('m'))}`],
  [
    `${redis(', gateways: 1')}${tenant(', limits: { requests_per_minute: 1 }')}${models(model('m'))}`,
  ],
  [`${redis()}${usage}${tenant(', budget: { day: 1 }')}${models(priced('m'))}`],
  [`${usage}${tenant(', budget: { day: 1 }, models: [m]')}${models(priced('m'), model('n'))}`],
  [
    `${tenant(', limits: { max_n: 3, max_context: 9 }, model_limits: { m: { max_n: 2 }, n: { max_context: 9 } }')}${models(model('m'), model('n'))}`,
  ],
  // By a split, and behind a model that it may use.
  [
    `splits: [{ name: s, models: [{ model: n, weight: 1 }, { model: m, weight: 1 }] }]\n${tenant(', models: [s], model_limits: { n: { concurrency: 1 } }')}${models(model('m'), model('n'))}`,
  ],
  [
    `${tenant(', models: [m], model_limits: { n: { concurrency: 1 } }')}${models(model('m', ', fallbacks: [n]'), model('n'))}`,
  ],
])('nothing is said of %s', (text) => {
  expect(warnings(text)).toEqual([]);
});

test('of several the first comes first, and no value is in any', () => {
  const text = `${models(priced('secret-name'))}${tenant(', models: [secret-name], limits: { burst: 5s }')}hedge: { budget: 0.1 }\n`;
  const all = warnings(text);
  expect(all.map((line) => line.split(':', 1)[0])).toEqual(['2', '4', '5']);
  expect(all.join()).not.toContain('secret-name');
});

test('an object is warned of as a file is', () => {
  const replicas = [{ url: 'http://h:1' }];
  const result = configFromObject({
    ...{ auth: { keys: 'off' }, tenants: [{ name: 't' }] },
    models: [{ name: 'm', replicas }],
  });
  expect(result.ok && result.warnings.map(({ path }) => path)).toEqual(['auth.keys']);
});
