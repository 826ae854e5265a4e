import { expect, test } from 'vitest';
import { ruleViolations, sourceRules } from './source-rules.ts';
import { readSources } from './source-text.ts';

const files = readSources('src', 'test', 'scripts', 'native-free-bench');
const header = '/** What this is. */\n';

test.each(sourceRules)('$name', (rule) => {
  expect(files.filter(({ path }) => rule.applies.test(path)).length).toBeGreaterThan(0);
  expect(ruleViolations(files, rule)).toEqual([]);
});

const violating: readonly (readonly [rule: string, path: string, text: string])[] = [
  ['a file has at most', 'src/lib/a.ts', header + 'x\n'.repeat(400)],
  ['a file has at most', 'test/unit/a.test.ts', 'x\n'.repeat(401)],
  ['a file opens with', 'src/lib/a.ts', 'export const x = 1;\n'],
  ['a file opens with', 'src/lib/a.ts', `import { x } from './b.ts';\n${header}`],
  ['a file opens with', 'scripts/a.ts', '// A line comment is no header.\n'],
  ['a file opens with', 'native-free-bench/a.ts', `/**\n${' * Too long.\n'.repeat(13)} */\n`],
  ['only commands and scripts print', 'src/lib/a.ts', `${header}console.log('x');`],
  ['only commands and scripts print', 'src/gateway/a.ts', `${header}console.error('x');`],
  ['no test is alone', 'test/unit/a.test.ts', `test.only('x', () => {});`],
  ['no test is alone', 'test/unit/a.test.ts', `describe.concurrent.only('x', () => {});`],
  ['no test is alone', 'test/unit/a.test.ts', `// why\ntest.only('x', () => {});`],
  ['no test is alone', 'test/unit/a.test.ts', `test.skip('x', () => {});`],
  ['no test is alone', 'test/unit/a.test.ts', `it.todo('x');`],
  ['atomics are called', 'src/shm/a.ts', `${header}const { load } = Atomics;`],
  ['atomics are called', 'src/shm/a.ts', `${header}const load = Atomics.load;`],
  ['atomics are called', 'src/shm/a.ts', `${header}use(Atomics);`],
  ['atomics are called', 'src/shm/a.ts', `${header}Atomics['load'](words, 0);`],
  ['only the scheduler blocks', 'src/acceptor/a.ts', `${header}Atomics.wait(words, 0, 0);`],
  ['only the scheduler blocks', 'src/shm/b.ts', `${header}Atomics . wait (words, 0, 0);`],
  ['the remote server is a replica', 'src/lib/a.ts', `${header}const backend = 1;`],
  ['the remote server is a replica', 'src/lib/a.ts', '/** Asks all Backends. */\n'],
];

test.each(violating)('"%s…" refuses %s: %j', (name, path, text) => {
  const rule = sourceRules.find((candidate) => candidate.name.startsWith(name));
  expect(rule).toBeDefined();
  expect(rule && ruleViolations([{ path, text }], rule)).toHaveLength(1);
});

test('every rule is seen to bite', () => {
  const bitten = sourceRules.filter(({ name }) =>
    violating.some(([rule]) => name.startsWith(rule)),
  );
  expect(bitten).toEqual(sourceRules);
});

test.each([
  ['src/cli/a.ts', `${header}console.log('x');`],
  ['src/lib/a.ts', `${header}// console.log('x')\nconst text = 'console.log()';`],
  ['test/unit/a.test.ts', `// The tool is not in Debian 12.\ntest.skip('x', () => {});`],
  ['test/unit/a.test.ts', `test.skipIf(process.getuid?.() !== 0)('x', () => {});`],
  ['src/shm/a.ts', `${header}Atomics.store(words, 0, 1);\n// Atomics.wait() is for the scheduler`],
  ['src/shm/a.ts', `${header}await Atomics.waitAsync(words, 0, 0).value;`],
  ['src/scheduler/idle.ts', `${header}Atomics.wait(words, 0, 0);`],
  ['src/main.ts', `#!/usr/bin/env node\n${header}console.log('x');`],
])('%s keeps every rule: %j', (path, text) => {
  expect(sourceRules.flatMap((rule) => ruleViolations([{ path, text }], rule))).toEqual([]);
});
