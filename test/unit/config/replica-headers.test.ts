import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { configFromObject, loadConfig } from '../../../src/config/load.ts';
import { parseNewReplica } from '../../../src/config/new-replica.ts';
import { formatProblem } from '../../../src/config/problems.ts';
import { load, problems } from './support.ts';

const replica = { url: 'http://h:1' };

function check(more: object) {
  return configFromObject({ models: [{ name: 'm', replicas: [{ ...replica, ...more }] }] });
}

/** What is wrong, with the path below the replica. */
function wrong(more: object): string[] {
  const result = check(more);
  if (result.ok) return [];
  return result.problems.map(formatProblem).map((text) => {
    return text.replace('config models.0.replicas.0.', '');
  });
}

function taken(more: object) {
  const result = check(more);
  if (!result.ok) throw new Error(result.problems.map(formatProblem).join('\n'));
  return result.config.models[0]?.replicas[0];
}

test('names come out in lower case, values as they are', () => {
  const headers = { 'HTTP-Referer': 'https://a.b/c?d=e', 'X-Title': 'Two words, é not', 'x-e': '' };
  expect(wrong({ headers })).toHaveLength(1);
  const plain = { ...headers, 'X-Title': 'Two words' };
  expect(taken({ headers: plain, api_key_header: 'API-Key' })).toMatchObject({
    api_key_header: 'api-key',
    headers: { 'http-referer': 'https://a.b/c?d=e', 'x-title': 'Two words', 'x-e': '' },
  });
  expect(taken({})).toMatchObject({ api_key_header: 'authorization', headers: {} });
});

test.each([
  ['Host', '`url` says which host'],
  ['accept-encoding', 'compressed'],
  ['Content-Length', 'frames a message'],
  ['transfer-encoding', 'frames a message'],
  ['connection', 'one connection'],
  ['keep-alive', 'one connection'],
  ['proxy-authorization', 'one connection'],
  ['proxy-connection', 'one connection'],
  ['te', 'one connection'],
  ['trailer', 'one connection'],
  ['upgrade', 'one connection'],
  ['expect', 'one connection'],
  ['content-type', 'each request has its own'],
  ['content-encoding', 'each request has its own'],
  ['Idempotency-Key', 'each request has its own'],
  ['x-request-id', 'each request has its own'],
  ['traceparent', 'each request has its own'],
  ['tracestate', 'each request has its own'],
])('%s cannot be set, nor carry a key', (name, reason) => {
  const [problem, ...more] = wrong({ headers: { [name]: 'x' } });
  expect(problem).toContain(`headers.${name}: must not be set: `);
  expect(problem).toContain(reason);
  expect(more).toEqual([]);
  expect(wrong({ api_key_header: name })[0]).toContain(reason);
});

const secret = 'hunter2secret';

test.each([
  ['a header in one text', `x-key: ${secret}`],
  ['headers as a list', [`x-key: ${secret}`]],
  ['a header as a name', { [`x-key: ${secret}`]: null }],
  ['a header as a name, with a value', { [`x-key:${secret}`]: '' }],
  ['a value of two lines', { 'x-key': `${secret}\r\nx-other: 1` }],
  ['a value with a zero', { 'x-key': `${secret}\0` }],
  ['a value with spaces around it', { 'x-key': ` ${secret}` }],
  ['a value that is no ASCII', { 'x-key': `${secret}é` }],
  ['a list of values', { 'x-key': [secret] }],
  ['a number', { 'x-key': 5 }],
  ['no value', { 'x-key': null }],
  ['an empty name', { '': secret }],
  ['one name twice', { 'x-key': secret, 'X-Key': secret }],
  ['a value that is too long', { 'x-key': secret.padEnd(4097, 'x') }],
  ['too much in all', { 'x-a': secret.padEnd(4096, 'x'), 'x-b': secret.padEnd(4096, 'x') }],
])('%s is refused and not repeated', (_, headers) => {
  const found = wrong({ headers });
  expect(found).toHaveLength(1);
  expect(found.join()).not.toContain(secret);
  expect(found.join()).toMatch(/^headers/);
});

test('there are at most 32 of them, within 8 KiB', () => {
  const some = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`x-${i}`, 'v']));
  expect(wrong({ headers: some(32) })).toEqual([]);
  expect(wrong({ headers: some(33) })).toEqual(['headers: must have at most 32 entries']);
  expect(wrong({ headers: { 'x-a': 'v'.repeat(4096), 'x-b': 'v'.repeat(4090) } })).toEqual([]);
});

test('the header of the key is not set a second time', () => {
  const authorization = 'Basic abc';
  expect(wrong({ headers: { authorization } })).toEqual([]);
  expect(wrong({ headers: { Authorization: authorization }, api_key: 'k' })).toEqual([
    'headers.authorization: must not be set: `api_key` is sent in it',
  ]);
  const elsewhere = { api_key: 'k', api_key_header: 'X-Own' };
  expect(wrong({ headers: { 'x-own': 'v' }, ...elsewhere })).toHaveLength(1);
  expect(wrong({ headers: { authorization }, ...elsewhere })).toEqual([]);
});

test('a replica that is added by hand is held against the same rules', () => {
  const body = { model: 'm', name: 'r9', ...replica, api_key: 'k' };
  expect(parseNewReplica({ ...body, headers: { 'X-A': 'b' } })).toMatchObject({
    value: { headers: { 'x-a': 'b' } },
  });
  for (const headers of [{ Host: secret }, { authorization: secret }, { [`a: ${secret}`]: 1 }]) {
    const parsed = parseNewReplica({ ...body, headers });
    expect(parsed).toMatchObject({ ok: false });
    expect(JSON.stringify(parsed)).not.toContain(secret);
  }
});

const withHeaders = (headers: string): string =>
  `models: [{ name: m, replicas: [{ url: "http://h:1", headers: { ${headers} } }] }]\n`;

test('a secret written into a header is a warning; a variable and a title are none', () => {
  const warnings = (headers: string): readonly string[] => {
    const result = load(withHeaders(headers), { env: { TOKEN: secret } });
    if (!result.ok) throw new Error('refused');
    return result.warnings.map(({ path }) => path.replace('models.0.replicas.0.', ''));
  };
  expect(warnings(`X-Team-Token: ${secret}`)).toEqual(['headers.X-Team-Token']);
  expect(warnings(`X-Team-Token: "$\{TOKEN}", X-Title: My Chat, Cookie: ""`)).toEqual([]);
  expect(problems(withHeaders(`X-Team-Token: "$\{NONE}"`)).join()).toContain('NONE');
});

test('the example of hosted providers is a config without a problem or a warning', () => {
  const path = resolve(import.meta.dirname, '../../../docs/examples/hosted.yaml');
  const names = ['AZURE_OPENAI_API_KEY', 'OPENROUTER_API_KEY', 'ANTHROPIC_API_KEY'];
  const env = Object.fromEntries(names.map((name) => [name, secret]));
  const example = loadConfig(readFileSync(path, 'utf8'), path, env, () => '');
  if (!example.ok) throw new Error(example.problems.map(formatProblem).join('\n'));
  expect(example.warnings).toEqual([]);
  const { config } = example;
  const keyed = config.models.flatMap(({ replicas }) => replicas.filter((r) => r.api_key !== ''));
  expect(keyed.map((row) => [row.name, row.api_key_header, row.headers])).toEqual([
    ['azure', 'api-key', {}],
    [
      'openrouter',
      'authorization',
      { 'http-referer': 'https://chat.example.com', 'x-title': 'Example Chat' },
    ],
    ['anthropic', 'x-api-key', { 'anthropic-version': '2023-06-01' }],
  ]);
});
