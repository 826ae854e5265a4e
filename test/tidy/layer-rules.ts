/**
 * The layering of DESIGN.md 4 as data, and the check of one file or of all imports against it.
 *
 * A violation is a line of text with the place, so that a test can show them all at once.
 */
import { posix } from 'node:path';
import { importsOf, type SourceFile } from './source-text.ts';

const pure = ['lib', 'errors', 'config', 'protocol', 'telemetry'];
const shared = [...pure, 'shm'];
const threads = ['acceptor', 'scheduler', 'forwarder', 'limiter', 'ledger', 'tracer'];
const siblings = ['errors', 'config', 'protocol', 'telemetry'];

/** Folder of src/ -> folders it may import, itself aside. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  lib: [],
  errors: pure,
  config: pure,
  protocol: pure,
  telemetry: pure,
  shm: pure,
  dispatch: ['lib'],
  acceptor: shared,
  scheduler: [...shared, 'dispatch'],
  forwarder: shared,
  redis: ['lib'],
  limiter: [...shared, 'redis'],
  ledger: [...shared, 'redis'],
  tracer: shared,
  gateway: [...shared, 'dispatch', ...threads, 'tokenizer'],
  tokenizer: shared,
  replica: ['lib', 'protocol', 'errors', 'telemetry'],
  load: ['lib', 'protocol', 'errors', 'telemetry'],
  simulation: [...pure, 'dispatch', 'replica'],
  supervisor: [...shared, 'gateway'],
  cli: [...shared, 'gateway', 'supervisor', 'replica', 'load', 'simulation'],
  'main.ts': [...pure, 'cli', 'supervisor', 'gateway'],
  'index.ts': [...shared, 'gateway'],
};

/** Folder -> folders it may take types from, which are erased and bring no code with them. */
const mayImportTypes: Readonly<Record<string, readonly string[]>> = { dispatch: shared };

/** Package -> where it may be imported; anywhere else it is a violation, tests aside. */
const packageHomes: Readonly<Record<string, readonly RegExp[]>> = {
  '@opentelemetry/api': [/^src\/tracer\//],
  '@opentelemetry/exporter-trace-otlp-proto': [/^src\/tracer\//],
  '@opentelemetry/resources': [/^src\/tracer\//],
  '@opentelemetry/sdk-trace': [/^src\/tracer\//],
  'uWebSockets.js': [/^src\/acceptor\/listener-uws\.ts$/, /^scripts\/bench/],
  '@redis/client': [/^src\/redis\//, /^src\/ledger\/sinks\//],
  kafkajs: [/^src\/ledger\/sinks\//],
  '@nats-io/transport-node': [/^src\/ledger\/sinks\//],
  '@nats-io/jetstream': [/^src\/ledger\/sinks\//],
  piscina: [/^src\/gateway\/tokenizer-threads\.ts$/],
  '@huggingface/tokenizers': [/^src\/tokenizer\//],
  '@huggingface/jinja': [/^src\/tokenizer\//],
  undici: [/^src\/forwarder\//, /^src\/gateway\/(?:health[^/]*|lora-api)\.ts$/, /^scripts\/bench/],
};

export function layerViolations(files: readonly SourceFile[]): string[] {
  return [...files.flatMap(fileViolations), ...siblingCycles(files)];
}

function fileViolations(file: SourceFile): string[] {
  const violations: string[] = [];
  const from = folderOf(file.path);
  for (const { specifier, line, typeOnly } of importsOf(file.text)) {
    const place = `${file.path}:${line}`;
    const homes = packageHomes[packageOf(specifier)];
    if (homes !== undefined && !homes.some((home) => home.test(file.path))) {
      violations.push(`${place} imports ${packageOf(specifier)}`);
    }
    if (from === undefined || !specifier.startsWith('.')) continue;
    const target = posix.join(posix.dirname(file.path), specifier);
    const to = folderOf(target);
    if (to === undefined) {
      // package.json carries the version; nothing else outside src/ ships with the package.
      if (target !== 'package.json') violations.push(`${place} imports ${target}, outside src/`);
      continue;
    }
    if (to.includes('${')) {
      // The gateway starts every thread; nobody else may load what cannot be read off the source.
      if (from !== 'gateway') violations.push(`${place} imports a folder chosen at run time`);
      continue;
    }
    const allowed = mayImport[from];
    if (allowed === undefined) {
      violations.push(`${file.path}: src/${from} is not in the layer table`);
      break;
    }
    const allowedTypes = typeOnly ? (mayImportTypes[from] ?? []) : [];
    if (to === from || allowed.includes(to) || allowedTypes.includes(to)) continue;
    violations.push(`${place} imports ${to}/, which ${from}/ may not`);
  }
  return violations;
}

/** The pure folders may use each other, as long as their order stays one. */
function siblingCycles(files: readonly SourceFile[]): string[] {
  const uses = new Map<string, Set<string>>(siblings.map((name) => [name, new Set()]));
  for (const file of files) {
    const from = folderOf(file.path) ?? '';
    for (const { specifier } of importsOf(file.text)) {
      if (!specifier.startsWith('.')) continue;
      const to = folderOf(posix.join(posix.dirname(file.path), specifier)) ?? '';
      if (to !== from && siblings.includes(to)) uses.get(from)?.add(to);
    }
  }
  return siblings
    .filter((name) => reaches(uses, name, name))
    .map((name) => `src/${name} is part of an import cycle`);
}

function reaches(uses: ReadonlyMap<string, ReadonlySet<string>>, from: string, goal: string) {
  const seen = new Set<string>();
  const open = [...(uses.get(from) ?? [])];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (name === goal) return true;
    if (seen.has(name)) continue;
    seen.add(name);
    open.push(...(uses.get(name) ?? []));
  }
  return false;
}

function folderOf(path: string): string | undefined {
  const [top, folder] = path.split('/');
  return top === 'src' ? folder : undefined;
}

function packageOf(specifier: string): string {
  const [scope = '', name] = specifier.split('/');
  return scope.startsWith('@') ? `${scope}/${name}` : scope;
}
