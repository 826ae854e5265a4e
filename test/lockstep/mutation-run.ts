/**
 * Runs the small searches against every mutant of src/shm; prints one JSON object.
 *
 *   node test/lockstep/mutation-run.ts [--file NAME] [--verbose]
 *
 * A mutant that no search catches is named, unless it is one of `equivalents`.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { type Mutant, mutantsOf } from './mutants.ts';
import { prove } from './search.ts';
import { loadModules, type Suite, suites } from './suites.ts';

/** Mutants that are the same program, each with the reason. */
const equivalents: readonly {
  readonly file: string;
  /** Part of the mutated line. */
  readonly line: string;
  readonly what: string;
  readonly why: string;
}[] = [
  {
    file: 'byte-ring',
    line: 'this.#seenHead = Atomics.load',
    what: 'load: before its neighbour',
    why: 'Loads the head for every record; the first look at the cached one spares a shared line.',
  },
  {
    file: 'heartbeat',
    line: 'at.phase, ThreadPhase.running',
    what: 'store: after its neighbour',
    why: 'The neighbour sets the timer, which runs after start() has returned.',
  },
  ...['row', 'epoch', 'identity', 'model', 'adapter'].flatMap((word) =>
    ['load: after', 'store: after', 'store: before'].map((what) => ({
      file: 'stored-responses',
      line: `entry + at.${word}`,
      what: `${what} its neighbour`,
      why: 'The words of an entry are of one writer while its stamp stays: their order says nothing.',
    })),
  ),
  ...['before', 'after'].map((side) => ({
    file: 'stored-responses',
    line: 'const isInUse =',
    what: `load: ${side} its neighbour`,
    why: 'What is seen of an entry that is not ours is a guess; the exchange of its stamp decides.',
  })),
  ...['before', 'after'].map((side) => ({
    file: 'heartbeat',
    line: 'at.connections',
    what: `store: ${side} its neighbour`,
    why: 'The neighbours write floats, which promise no order; the beat is stored after all of them.',
  })),
];

const root = join(import.meta.dirname, '../..');
const { values } = parseArgs({
  options: {
    file: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
});
const folder = mkdtempSync(join(tmpdir(), 'sluice-mutants-'));
writeFileSync(join(folder, 'package.json'), '{"type":"module"}');

const escaped: string[] = [];
let total = 0;
let argued = 0;
let caught = 0;
try {
  for (const suite of suites) {
    const unchanged = { line: 0, what: 'unchanged', text: sourceOf(suite.file) };
    const reason = await verdict(suite, unchanged, suite.file);
    if (reason !== undefined) throw new Error(`the shipped ${suite.file}.ts fails: ${reason}`);
  }
  for (const { suite, mutant } of chosen()) {
    total++;
    const label = `${suite.file}.ts:${mutant.line} ${mutant.what}`;
    const reason = await verdict(suite, mutant, `${total}`);
    if (values.verbose) process.stderr.write(`${label} -> ${reason?.split('\n')[0]}\n`);
    if (reason !== undefined) caught++;
    else if (isArgued(suite, mutant)) argued++;
    else escaped.push(label);
  }
} finally {
  rmSync(folder, { recursive: true });
}
process.stdout.write(`${JSON.stringify({ total, caught, argued, escaped })}\n`);

function isArgued({ file }: Suite, { line, what }: Mutant): boolean {
  const text = sourceOf(file).split('\n')[line - 1]!;
  return equivalents.some(
    (each) => each.file === file && each.what === what && text.includes(each.line),
  );
}

function sourceOf(file: string): string {
  return readFileSync(join(root, `src/shm/${file}.ts`), 'utf8');
}

function chosen(): { suite: Suite; mutant: Mutant }[] {
  return suites
    .filter(({ file }) => values.file === undefined || file === values.file)
    .flatMap((suite) => mutantsOf(sourceOf(suite.file)).map((mutant) => ({ suite, mutant })));
}

/** What caught the mutant; undefined when nothing did. */
async function verdict(suite: Suite, mutant: Mutant, name: string): Promise<string | undefined> {
  const copy = join(folder, name);
  mkdirSync(copy);
  const configs = ['config/capacities.ts', 'config/sinks.ts', 'protocol/response-key.ts'];
  for (const part of ['shm', 'lib', 'telemetry', ...configs]) {
    cpSync(join(root, 'src', part), join(copy, part), { recursive: true });
  }
  writeFileSync(join(copy, `shm/${suite.file}.ts`), mutant.text);
  try {
    const modules = await loadModules(pathToFileURL(`${copy}/`));
    for (const search of suite.searches(modules)) {
      if (!search.isLarge) prove(search);
    }
    return undefined;
  } catch (error) {
    const { message } = error as Error;
    if (!/is not defined|before initialization|SyntaxError|Unexpected/.test(message))
      return message;
    throw new Error(`${suite.file}.ts:${mutant.line} ${mutant.what} does not run: ${message}`);
  }
}
