/**
 * `npm run docs [-- --check]`: writes the generated pages, or says which have drifted.
 *
 * A page is a path and a function that renders it from the source of truth. `--check` writes nothing
 * and exits 1 when a page differs; test/tidy/docs.test.ts does the same.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

export interface Page {
  /** Relative to the root of the repository. */
  readonly path: string;
  render(): Promise<string>;
}

export const root = resolve(import.meta.dirname, '..');

export const pages: readonly Page[] = [
  {
    path: 'docs/configuration.md',
    render: async () => {
      const example = readFileSync(join(root, 'docs/examples/sluice.yaml'), 'utf8');
      return (await import('../src/config/reference.ts')).configMarkdown(example);
    },
  },
  {
    path: 'docs/sluice.schema.json',
    render: async () => (await import('../src/config/reference.ts')).configJsonSchema(),
  },
  {
    path: 'docs/errors.md',
    render: async () => (await import('../src/errors/reference.ts')).errorsMarkdown(),
  },
  {
    path: 'docs/memory-map.md',
    render: async () => (await import('../src/shm/memory-map.ts')).memoryMapMarkdown(),
  },
  {
    path: 'docs/metrics.md',
    render: async () => (await import('../src/telemetry/metrics-page.ts')).metricsMarkdown(),
  },
];

/** The pages whose file is missing or is not what would be rendered. */
export async function driftedPages(list: readonly Page[], folder: string): Promise<string[]> {
  const drifted: string[] = [];
  for (const page of list) {
    if (readPage(join(folder, page.path)) !== (await page.render())) drifted.push(page.path);
  }
  return drifted;
}

async function writePages(): Promise<void> {
  for (const page of pages) {
    const path = join(root, page.path);
    const text = await page.render();
    const isSame = readPage(path) === text;
    if (!isSame) {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    }
    process.stdout.write(`${isSame ? 'same   ' : 'written'} ${page.path}\n`);
  }
}

function readPage(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } });
  if (values.check) {
    const drifted = await driftedPages(pages, root);
    for (const path of drifted) process.stdout.write(`${path} has drifted; run npm run docs\n`);
    process.exitCode = drifted.length === 0 ? 0 : 1;
  } else {
    await writePages();
  }
}
