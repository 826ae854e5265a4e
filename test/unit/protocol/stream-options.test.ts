import { expect, test } from 'vitest';
import { mayRefuseOptions, namesOptions } from '../../../src/protocol/stream-options.ts';

const named = (...parts: string[]): boolean => namesOptions(parts.map((part) => Buffer.from(part)));

test.each([
  `{"error":{"message":"property 'stream_options' is unsupported, did you mean 'stream'?"}}`,
  '{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}',
  '{"error":[{"code":"unrecognized_keys","keys":["stream_options"],"path":[]}]}',
  'unknown field `continuous_usage_stats`, there are no fields',
  'Unknown parameter: include_usage',
])('a body that names the option: %s', (body) => {
  expect(named(body)).toBe(true);
  for (let at = 0; at < body.length; at++) {
    expect(named(body.slice(0, at), body.slice(at)), `cut at ${at}`).toBe(true);
  }
});

test('any other body, and any other status, says nothing of it', () => {
  expect(named('{"error":{"message":"max_tokens is too large"}}')).toBe(false);
  expect(named()).toBe(false);
  expect([400, 401, 404, 413, 422, 429, 500].filter(mayRefuseOptions)).toEqual([400, 422]);
});
