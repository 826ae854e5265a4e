import { expect, test } from 'vitest';
import { configFromObject } from '../../../src/config/load.ts';
import { namesOf } from '../../../src/config/model-names.ts';
import type { Config, ConfigInput } from '../../../src/config/schema.ts';
import { RunningConfig } from '../../../src/gateway/running-config.ts';

function config(input: ConfigInput): Config {
  const loaded = configFromObject(input);
  if (!loaded.ok) throw new Error(loaded.problems[0]?.message);
  return loaded.config;
}

test('terms and splits are those of the file, and adapters keep their numbers', () => {
  const replicas = (...adapters: string[]) => [{ url: 'http://h:1', name: 'a', adapters }];
  const start = config({ models: [{ name: 'm', replicas: replicas('x', 'y') }] });
  const running = new RunningConfig(start);
  expect(running.now).toBe(start);
  const next = config({
    models: [{ name: 'm', aliases: ['z'], replicas: replicas('y') }],
    splits: [{ name: 'chat', models: [{ model: 'y' }, { model: 'z' }] }],
  });
  expect(running.take(next)).toBe(running.now);
  expect([...namesOf(running.now)]).toEqual([
    ['m', { model: 0, adapter: 0 }],
    ['z', { model: 0, adapter: 0 }],
    ['x', { model: 0, adapter: 1 }],
    ['y', { model: 0, adapter: 2 }],
    ['chat', { model: 1, adapter: 0 }],
  ]);
  expect(running.start).toBe(start);
  running.take(start);
  expect(running.now.splits).toEqual([]);
});
