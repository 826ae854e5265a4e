/**
 * The configuration page and the editor schema, generated from the rows.
 *
 * Pure; run by `npm run docs`, compared by a test. A key without a description is a mistake of ours
 * and asserts, so the page cannot have gaps.
 */
import { assert } from '../lib/assert.ts';
import { type SchemaNode, schemaTree } from './schema-tree.ts';

const intro = `# Configuration

Generated from \`src/config/schema.ts\` by \`npm run docs\`; do not edit.

Sluice reads one YAML file (JSON is a subset): \`sluice serve --config FILE\`, by default
\`./sluice.yaml\`. \`sluice check --config FILE\` validates it and prints every problem as
\`FILE:line:col path: message\` with the key that was probably meant; rules over several keys, such as
that names differ, come once the sections they read are valid by themselves. The file is complete in
itself: an unknown key is an error, a missing key has the default below.

- **Durations** have a unit: \`500us\`, \`5ms\`, \`30s\`, \`2m\`, \`1h\`. **Sizes** too: \`512B\`, \`64KiB\`, \`16MiB\`, \`1GiB\`.
- **References** stand in any value: \`\${VAR}\` is an environment variable that must be set,
  \`\${VAR:-default}\` one that may be unset or empty, \`\${file:PATH}\` the content of a file without its last
  newline, relative to the folder of the config file. \`$\${\` is a literal \`\${\`. They are replaced after the
  file was parsed, so a value can never add a key, and take the type of their key. Inside \`{ }\` and \`[ ]\`
  YAML wants them quoted: \`{ port: "\${PORT}" }\`.
- **Secrets** belong in a variable or a file; \`sluice check\` warns about one in the file. No message, log line or page shows one.
- Editors check and complete the file with [sluice.schema.json](sluice.schema.json): the first line of the example.
- **A reload** (\`SIGHUP\`, \`POST /admin/reload\`, \`--watch\`) takes \`tenants\`, \`auth\`, \`splits\`, replicas, and of a model all keys but \`name\`, \`policy\`,
  \`session_affinity\`, \`tokenizer\` and \`lora\`. Every other key needs a restart, and so do another number of models, an adapter that is new to its
  model, and the first \`price\` where \`usage.file\` is set: such a reload changes nothing and names them.
- In programs the loaded object (\`Config\`) has the same key names; durations are milliseconds and sizes bytes.
`;

/** The whole page; `example` is a config file that a test validates. */
export function configMarkdown(example: string): string {
  const root = schemaTree();
  const parts = [intro, '## Example\n', `\`\`\`yaml\n${example.trimEnd()}\n\`\`\`\n`, '## Keys\n'];
  for (const [name, node] of Object.entries(root.properties ?? {})) {
    parts.push(`### ${name}\n`, `${described(node, name)}\n`);
    parts.push(
      ['| key | type | default | meaning |', '|---|---|---|---|', ...rows(node, name)].join('\n'),
    );
    parts.push('');
  }
  return `${parts.join('\n').trimEnd()}\n`;
}

/** JSON Schema of the file for editors; a reference may stand for any scalar. */
export function configJsonSchema(): string {
  const { ...root } = withReferences(schemaTree());
  const schema = {
    ...root,
    title: 'Sluice configuration',
    $defs: { reference: { type: 'string', pattern: '\\$\\{', description: 'A reference.' } },
  };
  return `${JSON.stringify(schema, null, 2)}\n`;
}

function rows(node: SchemaNode, path: string): readonly string[] {
  if (node.type === 'array') {
    const items = node.items;
    return items?.properties === undefined ? [] : rows(items, `${path}[]`);
  }
  return Object.entries(node.properties ?? {}).flatMap(([key, child]) => {
    const childPath = `${path}.${key}`;
    const required = node.required?.includes(key) === true;
    const cells = [
      `\`${childPath}\``,
      typeText(child),
      required ? 'required' : defaultText(child),
      described(child, childPath),
    ];
    return [
      `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`,
      ...rows(child, childPath),
    ];
  });
}

function described(node: SchemaNode, path: string): string {
  assert(node.description !== undefined, `every config key is described: ${path}`);
  return node.description;
}

function typeText(node: SchemaNode): string {
  if (node.enum !== undefined) return node.enum.map((value) => `\`${value}\``).join(', ');
  if (node.quantity !== undefined) return `${node.quantity}, ${node.range}`;
  if (node.writeOnly === true) return 'secret';
  switch (node.type) {
    case 'integer':
      return `whole number, ${node.minimum} to ${node.maximum}`;
    case 'number':
      return `number, ${node.minimum} to ${node.maximum}`;
    case 'boolean':
      return 'true or false';
    case 'array':
      return `list, ${node.minItems ?? 0} to ${node.maxItems} entries`;
    case 'object':
      return 'mapping';
    default:
      return 'text';
  }
}

function defaultText(node: SchemaNode): string {
  return node.default === undefined
    ? 'none'
    : `\`${JSON.stringify(node.default).replace(/^"(.+)"$/, '$1')}\``;
}

function withReferences(node: SchemaNode): SchemaNode | Record<string, unknown> {
  const { properties, items, range, quantity, ...rest } = node;
  const entries = Object.entries(properties ?? {});
  if (node.type === 'object') {
    const children = entries.map(([key, child]) => [key, withReferences(child)]);
    return { ...rest, properties: Object.fromEntries(children) };
  }
  if (items !== undefined) return { ...rest, items: withReferences(items) };
  const isFreeText =
    node.type === 'string' && node.pattern === undefined && node.enum === undefined;
  const { description, default: value, ...check } = rest;
  const about = {
    description: range === undefined ? description : `${description} (${range})`,
    ...(value === undefined ? {} : { default: value }),
  };
  if (isFreeText) return { ...about, type: 'string' };
  return { ...about, anyOf: [check, { $ref: '#/$defs/reference' }] };
}
