/**
 * Runs the small searches against every mutant of src/shm; prints one JSON object.
 *
 *   node test/lockstep/mutation-run.ts [--seed N] [--sample N] [--file NAME] [--verbose]
 *
 * A mutant that no search catches is named, unless it is one of `equivalents`.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { createPrng } from '../../src/lib/prng.ts';
import { type Mutant, mutantsOf } from './mutants.ts';
import { prove } from './search.ts';
import { loadModules, type Suite, suites } from './suites.ts';

/** Mutants that are the same program, each with the reason. */
const equivalents: readonly {
  readonly file: string;
  readonly what: string;
  readonly why: string;
}[] = [
  {
    file: 'byte-ring',
    what: 'load: before its neighbour',
    why: 'Loads the head for every record; the first look at the cached one spares a shared line.',
  },
];

const root = join(import.meta.dirname, '../..');
const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    sample: { type: 'string' },
    file: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
});
const folder = mkdtempSync(join(tmpdir(), 'sluice-mutants-'));
writeFileSync(join(folder, 'package.json'), '{"type":"module"}');

const survivors: string[] = [];
let total = 0;
let caught = 0;
try {
  for (const suite of suites) {
    const unchanged = readFileSync(join(root, `src/shm/${suite.file}.ts`), 'utf8');
    const reason = await verdict(
      suite,
      { line: 0, what: 'unchanged', text: unchanged },
      suite.file,
    );
    if (reason !== undefined) throw new Error(`the shipped ${suite.file}.ts fails: ${reason}`);
  }
  for (const { suite, mutant } of chosen()) {
    total++;
    const label = `${suite.file}.ts:${mutant.line} ${mutant.what}`;
    const reason = await verdict(suite, mutant, `${total}`);
    if (values.verbose) process.stderr.write(`${label} -> ${reason?.split('\n')[0]}\n`);
    if (reason === undefined) survivors.push(label);
    else caught++;
  }
} finally {
  rmSync(folder, { recursive: true });
}
const isArgued = (survivor: string): boolean =>
  equivalents.some(
    ({ file, what, why }) =>
      why !== '' && survivor.startsWith(`${file}.ts:`) && survivor.endsWith(what),
  );
const escaped = survivors.filter((survivor) => !isArgued(survivor));
process.stdout.write(
  `${JSON.stringify({ seed: Number(values.seed), total, caught, argued: survivors.length - escaped.length, escaped })}\n`,
);

function chosen(): { suite: Suite; mutant: Mutant }[] {
  const all = suites
    .filter(({ file }) => values.file === undefined || file === values.file)
    .flatMap((suite) => {
      const source = readFileSync(join(root, `src/shm/${suite.file}.ts`), 'utf8');
      return mutantsOf(source).map((mutant) => ({ suite, mutant }));
    });
  if (values.sample === undefined) return all;
  const random = createPrng(Number(values.seed));
  return all
    .map((each) => ({ each, order: random.next() }))
    .sort((a, b) => a.order - b.order)
    .slice(0, Number(values.sample))
    .map(({ each }) => each);
}

/** What caught the mutant; undefined when nothing did. */
async function verdict(suite: Suite, mutant: Mutant, name: string): Promise<string | undefined> {
  const copy = join(folder, name);
  mkdirSync(copy);
  for (const part of ['shm', 'lib', 'telemetry']) {
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
