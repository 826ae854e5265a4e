import { type LoadResult, loadConfig } from '../../../src/config/load.ts';
import { formatProblem } from '../../../src/config/problems.ts';
import type { Config } from '../../../src/config/schema.ts';

export interface World {
  readonly env?: Readonly<Record<string, string>>;
  /** Absolute path -> content; any other file does not exist. */
  readonly files?: Readonly<Record<string, string>>;
}

export const models = `models: [{ name: m, replicas: [{ url: "http://127.0.0.1:9001" }] }]\n`;

/** A model and a replica as flow mappings of YAML; `more` begins with a comma. */
export const m = (name: string, replicas: string, more = ''): string =>
  `{ name: ${name}, replicas: [${replicas}] ${more}}`;
export const url = (port: number, more = ''): string => `{ url: "http://h:${port}" ${more}}`;

export function load(text: string, { env = {}, files = {} }: World = {}): LoadResult {
  return loadConfig(text, '/etc/sluice/sluice.yaml', env, (path) => {
    const content = files[path];
    if (content !== undefined) return content;
    throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
  });
}

export function loaded(text: string, world?: World): Config {
  const result = load(text, world);
  if (!result.ok) throw new Error(result.problems.map(formatProblem).join('\n'));
  return result.config;
}

/** The problems as printed, without the file's name. */
export function problems(text: string, world?: World): string[] {
  const result = load(text, world);
  if (result.ok) return [];
  return result.problems.map((problem) =>
    formatProblem(problem).replace(/^\/etc\/sluice\/sluice\.yaml:/, ''),
  );
}
