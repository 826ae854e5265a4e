import { stripVTControlCharacters } from 'node:util';
import { expect, test } from 'vitest';
import {
  errorText,
  logFieldNames,
  messageText,
  pickFields,
} from '../../../src/telemetry/log-fields.ts';
import { prettyLine } from '../../../src/telemetry/log-pretty.ts';

test('only listed fields of their own type pass', () => {
  const record = {
    ...{ req_id: 'a', model: 'm', status: 200, ttft_ms: 12.34567, err: 'boom' },
    ...{ prompt: 'secret', messages: ['secret'], authorization: 'Bearer secret', body: {} },
  };
  expect(pickFields(record)).toEqual({
    ...{ req_id: 'a', model: 'm', status: 200, ttft_ms: 12.346, err: 'boom' },
  });
  const wrong = { req_id: { secret: 1 }, status: 'secret', e2e_ms: Number.NaN } as never;
  expect(pickFields(wrong)).toEqual({});
  for (const name of Object.keys(pickFields(record))) expect(logFieldNames).toContain(name);
});

test('control bytes and direction marks are escaped everywhere', () => {
  const hostile = 'a\r\n{"level":"fatal"}\u001b[2J\u009b31m\u2028\u202e\u0000';
  const texts = [
    messageText(hostile),
    errorText(hostile),
    errorText(new Error(hostile)),
    String(pickFields({ tenant: hostile }).tenant),
  ];
  for (const text of texts) {
    expect(text).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u202e]/);
    expect(text).toContain('\\u001b[2J\\u009b31m\\u2028\\u202e\\u0000');
  }
});

test('every text is cut', () => {
  const long = 'x'.repeat(1_000_000);
  expect(messageText(long).length).toBeLessThan(600);
  expect(errorText(long).length).toBeLessThan(600);
  expect(errorText(new Error(long)).length).toBeLessThan(1500);
  const picked = pickFields({ req_id: long, tenant: long, model: long, replica: long });
  expect(JSON.stringify(picked).length).toBeLessThan(1000);
});

test('an error of JSON.parse does not tell what it read', () => {
  let caught: unknown;
  try {
    JSON.parse('{"messages": my secret prompt\n    at the bank}');
  } catch (error) {
    caught = error;
  }
  expect((caught as Error).message).toContain('secret');
  expect(errorText(caught)).toMatch(/^SyntaxError \| at /);
  expect(errorText(caught)).not.toContain('secret');
  expect(errorText(caught)).not.toContain('bank');
});

test('an error shows its name, code, message and first frames on one line', () => {
  const error = Object.assign(new TypeError('socket gone\n    at nowhere'), { code: 'ECONNRESET' });
  const text = errorText(error);
  expect(text).toMatch(/^TypeError ECONNRESET: socket gone\\u000a {4}at nowhere \| at /);
  expect(text.split(' | ').length).toBeLessThanOrEqual(5);
  expect(errorText(undefined)).toBe('unknown');
  expect(errorText({ secret: 1 })).toBe('unknown');
  expect(errorText(Object.assign(new Error('x'), { stack: 7 }))).toBe('Error: x');
});

test('the line for people has the time, level, thread, message and fields', () => {
  const record = { level: 'warn', ts: '2026-01-02T03:04:05.678Z', thread: 'forwarder-0' };
  const line = prettyLine(JSON.stringify({ ...record, replica: 'r1', ttft_ms: 812, msg: 'slow' }));
  expect(stripVTControlCharacters(line)).toBe(
    '03:04:05.678 WARN  forwarder-0 slow  replica=r1 ttft_ms=812\n',
  );
});
