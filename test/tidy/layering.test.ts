import { expect, test } from 'vitest';
import { layerViolations } from './layer-rules.ts';
import { importsOf, readSources } from './source-text.ts';

const file = (path: string, text: string) => ({ path, text });

test('imports point down, and packages stay where they belong', () => {
  const files = readSources('src', 'scripts', 'native-free-bench');
  expect(files.length).toBeGreaterThan(50);
  expect(layerViolations(files)).toEqual([]);
});

test.each([
  ['src/lib/a.ts', `import { x } from '../shm/ring.ts';`],
  ['src/protocol/a.ts', `import type { X } from '../shm/ring.ts';`],
  ['src/acceptor/a.ts', `import { x } from '../forwarder/b.ts';`],
  ['src/acceptor/a.ts', `import type { X } from '../forwarder/b.ts';`],
  ['src/acceptor/a.ts', `export { x } from '../scheduler/b.ts';`],
  ['src/acceptor/a.ts', `const b = await import('../scheduler/b.ts');`],
  ['src/acceptor/a.ts', `new Worker(new URL('../scheduler/main.ts', import.meta.url));`],
  ['src/acceptor/a.ts', `new Worker(new URL(\`../$\{folder}/main.ts\`, import.meta.url));`],
  ['src/scheduler/a.ts', `import { x } from '../gateway/b.ts';`],
  ['src/shm/a.ts', `import { x } from '../dispatch/b.ts';`],
  ['src/gateway/a.ts', `import { x } from '../cli/b.ts';`],
  ['src/dispatch/policies/a.ts', `import { x } from '../../shm/b.ts';`],
  ['src/dispatch/a.ts', `import { type X, x } from '../config/schema.ts';`],
  ['src/dispatch/a.ts', `import type { X } from '../acceptor/b.ts';`],
  ['src/replica/a.ts', `import { x } from '../config/units.ts';`],
  ['src/load/a.ts', `import { x } from '../shm/b.ts';`],
  ['src/gateway/a.ts', `import { x } from '../../test/b.ts';`],
  ['src/unheard-of/a.ts', `import { x } from '../lib/b.ts';`],
  ['src/acceptor/listener.ts', `import uws from 'uWebSockets.js';`],
  ['src/acceptor/listener.ts', `const uws = require('uWebSockets.js');`],
  ['scripts/profile.ts', `await import('uWebSockets.js');`],
  ['native-free-bench/a.ts', `import uws from 'uWebSockets.js';`],
  ['src/replica/a.ts', `import { request } from 'undici';`],
  ['src/gateway/admin-server.ts', `import { Pool } from 'undici';`],
  ['src/load/a.ts', `import Pool from 'undici/lib/dispatcher/pool.js';`],
  ['scripts/load.ts', `import {\n  Pool,\n} from "undici";`],
])('%s may not say %s', (path, text) => {
  expect(layerViolations([file(path, text)])).toHaveLength(1);
});

test.each([
  ['src/shm/a.ts', `import { x } from '../telemetry/b.ts';`],
  ['src/dispatch/a.ts', `import type { X } from '../config/schema.ts';`],
  ['src/gateway/a.ts', `new Worker(new URL('../scheduler/main.ts', import.meta.url));`],
  ['src/acceptor/listener-uws.ts', `import uws from 'uWebSockets.js';`],
  ['src/forwarder/pools.ts', `import { Pool } from 'undici';`],
  ['src/gateway/health.ts', `import { Agent } from 'undici';`],
  ['src/gateway/health-probe.ts', `import { Agent } from 'undici';`],
  ['scripts/bench/baseline-uws.ts', `import uws from 'uWebSockets.js';`],
  ['src/lib/a.ts', `// import { x } from '../shm/ring.ts';`],
  ['src/lib/a.ts', `const text = "import { x } from '../shm/ring.ts'";`],
  ['src/acceptor/a.ts', `/* import '../forwarder/b.ts' */ import '../lib/c.ts';`],
])('%s may say %s', (path, text) => {
  expect(layerViolations([file(path, text)])).toEqual([]);
});

test('the pure folders have one order among themselves', () => {
  const down = [
    file('src/telemetry/a.ts', `import { x } from '../errors/b.ts';`),
    file('src/protocol/a.ts', `import { x } from '../errors/b.ts';`),
    file('src/errors/b.ts', `import { x } from '../lib/c.ts';`),
  ];
  expect(layerViolations(down)).toEqual([]);
  const back = file('src/errors/d.ts', `import type { X } from '../protocol/e.ts';`);
  expect(layerViolations([...down, back])).toEqual([
    'src/errors is part of an import cycle',
    'src/protocol is part of an import cycle',
  ]);
});

test('an import is found on its line whatever stands around it', () => {
  const text = [
    "const pattern = /['\"`/]/g; // a quote in a comment: '",
    `const nested = \`a $\{\`b $\{c}\` /* } */} d\`;`,
    "import a, {\n  type B,\n} from './b.ts';",
    "import type C from './c.ts';",
    "export * from './d.ts';",
    "import './e.ts';",
    'const half = total / count; const f = import("./f.ts");',
  ].join('\n');
  expect(importsOf(text).sort((a, b) => a.line - b.line)).toEqual([
    { specifier: './b.ts', line: 3, typeOnly: false },
    { specifier: './c.ts', line: 6, typeOnly: true },
    { specifier: './d.ts', line: 7, typeOnly: false },
    { specifier: './e.ts', line: 8, typeOnly: false },
    { specifier: './f.ts', line: 9, typeOnly: false },
  ]);
});
