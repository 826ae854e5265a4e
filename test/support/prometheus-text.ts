/**
 * A strict reader of the Prometheus text format 0.0.4: throws on anything a server would refuse,
 * such as a sample of no family, a second HELP, or the same series twice.
 */
export interface Family {
  readonly type: string;
  readonly help: string;
  /** Value by `name{label="value",…}` with labels sorted by name. */
  readonly samples: Map<string, number>;
}

const samplePattern = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const labelPattern = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(?:,|$)/y;

export function parsePrometheusText(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const families = new Map<string, Family>();
  const helps = new Map<string, string>();
  let current: [string, Family] | undefined;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const [, keyword, name, rest = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (keyword === 'HELP') {
      if (name === undefined || helps.has(name)) throw new Error(`second HELP: ${line}`);
      helps.set(name, rest);
    } else if (keyword === 'TYPE') {
      if (name === undefined || families.has(name)) throw new Error(`second TYPE: ${line}`);
      current = [name, { type: rest, help: helps.get(name) ?? '', samples: new Map() }];
      families.set(...current);
    } else {
      if (current === undefined) throw new Error(`sample before its family: ${line}`);
      addSample(current[0], current[1], line);
    }
  }
  return families;
}

function addSample(family: string, { type, samples }: Family, line: string): void {
  const [, name, labels = '', value] = samplePattern.exec(line) ?? [];
  if (name === undefined || value === undefined) throw new Error(`not a sample: ${line}`);
  const suffixes =
    type === 'histogram'
      ? ['_bucket', '_sum', '_count']
      : type === 'summary'
        ? ['', '_sum', '_count']
        : [''];
  if (!suffixes.some((suffix) => name === family + suffix)) throw new Error(`stray: ${line}`);
  const key = `${name}{${parseLabels(labels).join(',')}}`;
  if (samples.has(key)) throw new Error(`the same series twice: ${line}`);
  const number = value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value);
  // Go reads NaN in any case; prom-client writes Nan for the lag of an event loop not yet sampled.
  if (Number.isNaN(number) && value.toLowerCase() !== 'nan')
    throw new Error(`not a number: ${line}`);
  samples.set(key, number);
}

function parseLabels(text: string): string[] {
  const labels: string[] = [];
  labelPattern.lastIndex = 0;
  while (labelPattern.lastIndex < text.length) {
    const match = labelPattern.exec(text);
    if (match === null) throw new Error(`bad labels: ${text}`);
    labels.push(`${match[1]}="${match[2]}"`);
  }
  return labels.sort();
}
