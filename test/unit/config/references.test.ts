import { expect, test } from 'vitest';
import { expandReferences } from '../../../src/config/references.ts';
import { load, loaded, models, problems } from './support.ts';

const sources = {
  env: { NAME: 'value', EMPTY: '', NESTED: `$\{NAME}`, BRACE: 'a}b' },
  readFile: (path: string): string => {
    if (path === 'key') return 'from file\n';
    if (path === 'large') return 'x'.repeat(65_537);
    throw Object.assign(new Error('no'), { code: 'EACCES' });
  },
};

test.each([
  ['plain', 'plain'],
  ['$', '$'],
  [`a $\{NAME} b $\{NAME}`, 'a value b value'],
  [`$\{EMPTY}`, ''],
  [`$\{EMPTY:-fallback}`, 'fallback'],
  [`$\{MISSING:-fallback}`, 'fallback'],
  [`$\{MISSING:-}`, ''],
  [`$\{NAME:-fallback}`, 'value'],
  [`$\{file:key}`, 'from file'],
  [`$$\{NAME}`, `$\{NAME}`],
  [`$$\{NAME} $\{NAME}`, `$\{NAME} value`],
  [`$\{NESTED}`, `$\{NAME}`], // what a reference yields is not expanded again
  [`$\{BRACE}`, 'a}b'],
])('%s becomes %s', (text, expanded) => {
  expect(expandReferences(text, sources)).toEqual({ text: expanded, problems: [] });
});

test.each([
  [`$\{MISSING}`, 'needs the environment variable MISSING, which is not set'],
  [`$\{toString}`, 'needs the environment variable toString, which is not set'],
  [`$\{NAME`, 'has a reference without its closing brace'],
  [`$\{}`, 'has a reference that names neither a variable nor a file'],
  [`$\{NAME-x}`, 'has a reference that names neither a variable nor a file'],
  [`$\{file:}`, 'has a file reference without a path'],
  [`$\{file:secret}`, 'needs the file secret, which cannot be read (EACCES)'],
  [`$\{file:large}`, 'needs the file large, which is larger than 65536 bytes'],
])('%s is a problem', (text, problem) => {
  expect(expandReferences(text, sources).problems).toEqual([problem]);
});

test('many references in one scalar cannot add up without bound', () => {
  const env = { BIG: 'x'.repeat(100_000) };
  const { text, problems } = expandReferences(`$\{BIG}`.repeat(1000), { ...sources, env });
  expect(text).toBe('');
  expect(problems).toEqual(['expands to more than 262144 characters']);
});

test('a reference takes the type of its key, quoted or not', () => {
  const text = `listen: { port: "$\{PORT}" }
queue:
  max: $\{MAX}
hedge: { automatic: "$\{HEDGE:-false}", budget: "$\{SHARE}" }
models: [{ name: "$\{MODEL}", replicas: [{ url: "http://$\{HOST}:$\{PORT}" }] }]
`;
  const env = { PORT: '9000', MAX: '12', SHARE: '0.5', MODEL: '70', HOST: 'gpu' };
  expect(loaded(text, { env })).toMatchObject({
    listen: { port: 9000 },
    queue: { max: 12 },
    hedge: { automatic: false, budget: 0.5 },
    models: [{ name: '70', replicas: [{ url: 'http://gpu:9000' }] }],
  });
});

test('only a reference is read as a number; quoted digits stay text', () => {
  expect(problems(`listen: { port: "9000" }\n${models}`)).toEqual([
    '1:17 listen.port: must be a number',
  ]);
  expect(problems(`listen: { port: "$\{PORT}" }\n${models}`, { env: { PORT: '9e3' } })).toEqual([
    '1:17 listen.port: must be a number',
  ]);
  expect(problems(`listen: { port: "$\{PORT}" }\n${models}`, { env: { PORT: '70000' } })).toEqual([
    '1:17 listen.port: must be at most 65535',
  ]);
});

test('a value can add no key and no line', () => {
  const env = { TOKEN: 'x", port: 1, y: "' };
  expect(problems(`admin: { token: "$\{TOKEN}" }\n${models}`, { env })).toEqual([
    '1:17 admin.token: must be visible ASCII without spaces',
  ]);
});

test('a missing variable is reported at its line beside every other problem', () => {
  const text = `admin: { token: "$\{TOKEN}", prot: 1 }\nlisten: { port: "$\{PORT}" }\n${models}`;
  expect(problems(text)).toEqual([
    '1:17 admin.token: needs the environment variable TOKEN, which is not set',
    '1:29 admin.prot: unknown key (did you mean "port"?)',
    '2:17 listen.port: needs the environment variable PORT, which is not set',
  ]);
});

test('a file reference is relative to the folder of the config file', () => {
  const text = `admin: { token: "$\{file:secrets/token}" }\n${models}`;
  const files = { '/etc/sluice/secrets/token': 'abc\r\n' };
  expect(loaded(text, { files }).admin.token).toBe('abc');
});

test('no message ever shows a value that a reference brought', () => {
  const secret = 'hunter2-\u0001-secret';
  const env = { S: secret, URL: 'http://user:hunter2@h:1' };
  const text = `listen: { port: "$\{S}", engine: "$\{S}", host: "$\{S}", max_body: "$\{S}" }
admin: { token: "$\{S}" }
health: { path: "$\{S}" }
models:
  - { name: "$\{S}", policy: "$\{S}", replicas: [{ url: "$\{S}", api_key: "$\{S}", weight: "$\{S}" }] }
  - { name: b, replicas: [{ url: "$\{URL}", name: "$\{S}" }] }
`;
  const result = load(text, { env });
  if (result.ok) throw new Error('accepted');
  expect(result.problems).toHaveLength(13);
  expect(JSON.stringify(result.problems)).not.toContain('hunter2');
});
