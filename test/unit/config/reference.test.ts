import { expect, test } from 'vitest';
import { configJsonSchema, configMarkdown } from '../../../src/config/reference.ts';
import { type SchemaNode, schemaTree, schemaValues } from '../../../src/config/schema-tree.ts';
import { loaded, models } from './support.ts';

/** The names of all keys, as the page writes them. */
function keyNames(node: SchemaNode, path: string): string[] {
  if (node.items?.properties !== undefined) return keyNames(node.items, `${path}[]`);
  return Object.entries(node.properties ?? {}).flatMap(([key, child]) => {
    const name = path === '' ? key : `${path}.${key}`;
    return [...(path === '' ? [] : [name]), ...keyNames(child, name)];
  });
}

test('the page has one row for every key', () => {
  const names = keyNames(schemaTree(), '');
  const rows = [...configMarkdown('').matchAll(/^\| `([^`]+)` \|/gm)].map(([, name]) => name);
  expect(names).toContain('models[].replicas[].url');
  expect(rows).toEqual(names);
});

test('a row shows type, default and meaning', () => {
  const page = configMarkdown('');
  expect(page).toContain('| `timeouts.queue` | duration, 1ms to 10m | `30s` | A request that');
  expect(page).toContain('| `admin.token` | secret | `""` |');
  expect(page).toContain('| `models[].replicas[].url` | text | required |');
});

test('the page holds the example as it is given', () => {
  expect(configMarkdown('queue: { max: 1 }\n')).toContain('```yaml\nqueue: { max: 1 }\n```\n');
});

test('the editor schema refuses unknown keys and lets a reference stand for any value', () => {
  const schema = JSON.parse(configJsonSchema());
  expect(schema.additionalProperties).toBe(false);
  expect(schema.required).toEqual(['models']);
  expect(schema.properties.listen.properties.port).toMatchObject({
    default: 8080,
    anyOf: [{ type: 'integer', minimum: 0, maximum: 65_535 }, { $ref: '#/$defs/reference' }],
  });
  expect(schema.$defs.reference.pattern).toBe('\\$\\{');
});

test('the secrets are exactly the keys that hold one', () => {
  const usage = {
    kafka: { sasl: { username: '', password: '' } },
    redis_stream: { username: '', password: '' },
    nats: { username: '', password: '', token: '' },
  };
  const tls = { cert: '', key: '', passphrase: '' };
  const config = { ...loaded(models), listen: { tls }, usage };
  const secrets = [...schemaValues(config)]
    .filter(({ node }) => node.writeOnly === true)
    .map(({ path }) => path.join('.'));
  expect(secrets).toEqual([
    ...['listen.tls.passphrase', 'admin.token'],
    ...['usage.kafka.sasl.password', 'usage.redis_stream.password'],
    ...['usage.nats.password', 'usage.nats.token'],
    ...['limits.redis.password', 'models.0.replicas.0.api_key'],
  ]);
});
