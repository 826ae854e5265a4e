/** The error catalogue: numbers, the status map of the contract, bodies, and the page in docs. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  anthropicErrorBody,
  anthropicErrorEvent,
  anthropicStatus,
  errorBody,
  sseErrorEvent,
} from '../../../src/errors/bodies.ts';
import {
  type ErrorName,
  errorList,
  errorOf,
  errors,
  reservedNumbers,
} from '../../../src/errors/catalogue.ts';
import { errorsMarkdown } from '../../../src/errors/reference.ts';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
const json = (bytes: Uint8Array): unknown => JSON.parse(text(bytes));

test('numbers are unique, fit a byte, and lead back to their entry', () => {
  expect(new Set(errorList.map((entry) => entry.number)).size).toBe(errorList.length);
  for (const entry of errorList) {
    expect(entry.number).toBeGreaterThan(0);
    expect(entry.number).toBeLessThan(128);
    expect(errorOf(entry.number)).toBe(entry);
    expect(errors[entry.name as ErrorName]).toBe(entry);
  }
});

test('a number nobody knows is our own defect', () => {
  for (const number of [0, 59, 108, 128, -1, 1.5]) expect(errorOf(number)).toBe(errors.INTERNAL);
});

test('a reserved number has no entry', () => {
  expect(reservedNumbers.length).toBeGreaterThan(0);
  for (const number of reservedNumbers) expect(errorOf(number)).toBe(errors.INTERNAL);
});

/** Numbers are stored and sent: a changed one is a broken contract. Add, never edit. */
test('numbers never change', () => {
  const numbers = errorList.map((entry) => `${entry.number} ${entry.name}`).join('\n');
  expect(numbers).toMatchSnapshot();
});

test.each([
  ['BAD_FRAMING', 400],
  ['BAD_JSON', 400],
  ['DUPLICATE_KEY', 400],
  ['MODEL_NOT_FOUND', 404],
  ['ROUTE_NOT_FOUND', 404],
  ['METHOD_NOT_ALLOWED', 405],
  ['LENGTH_REQUIRED', 411],
  ['BODY_TOO_LARGE', 413],
  ['HEADERS_TOO_LARGE', 431],
  ['QUEUE_FULL', 429],
  ['ARENA_FULL', 503],
  ['SLOTS_FULL', 503],
  ['NO_REPLICA', 503],
  ['QUEUE_TIMEOUT', 503],
  ['DRAINING', 503],
  ['ALL_ATTEMPTS_FAILED', 502],
  ['DEADLINE', 504],
  ['CLIENT_GONE', 499],
] as const)('%s answers %i', (name, status) => {
  expect(errors[name].status).toBe(status);
});

test('every 429 and 503 advises when to come back, and nothing else does', () => {
  for (const entry of errorList) {
    expect(entry.retryAfterS > 0, entry.name).toBe([429, 503].includes(entry.status));
  }
});

test('only what a replica did, and a lost thread, may be retried, before the first byte', () => {
  for (const entry of errorList) {
    const isLost = entry === errors.FORWARDER_LOST;
    if (entry.retry !== 'never') expect(entry.source).toBe(isLost ? 'gateway' : 'upstream');
    if (entry.source === 'upstream') expect([401, 429, 502, 503]).toContain(entry.status);
    expect(entry.flag).toMatch(/^[A-Z]{2,4}$/);
    expect(entry.code).toMatch(/^[a-z0-9_]+$/);
    expect(entry.message).toMatch(/^[A-Z].*\.$/);
    expect(entry.hint.length).toBeGreaterThan(0);
  }
  expect(errors.ALL_ATTEMPTS_FAILED.retry).toBe('never');
});

describe('bodies', () => {
  test('the OpenAI shape, shared when constant', () => {
    expect(json(errorBody(errors.MODEL_NOT_FOUND))).toEqual({
      error: {
        message: 'The model does not exist; GET /v1/models lists those that do.',
        type: 'invalid_request_error',
        param: 'model',
        code: 'model_not_found',
      },
    });
    expect(errorBody(errors.BAD_JSON)).toBe(errorBody(errors.BAD_JSON));
    expect(errorBody(errors.BAD_JSON)).not.toBe(errorBody(errors.DUPLICATE_KEY));
  });

  test('text from the network stays text', () => {
    const hostile = '"}}\r\n\r\ndata: [DONE]\n\n\u2028</script>';
    const body = json(errorBody(errors.INVALID_PARAM, hostile, 'n"')) as { error: object };
    expect(body.error).toMatchObject({ message: hostile, param: 'n"' });
    const event = text(sseErrorEvent(errors.TRUNCATED_STREAM, hostile));
    expect(event.indexOf('\n')).toBe(event.length - 2);
    expect(event).not.toContain('\r');
    const anthropic = text(anthropicErrorEvent(errors.TRUNCATED_STREAM, hostile));
    expect(anthropic.split('\n')).toHaveLength(4);
  });

  test('an error event is one event, the same object, and says no [DONE]', () => {
    const event = text(sseErrorEvent(errors.TRUNCATED_STREAM));
    expect(event).toMatch(/^data: \{"error":\{.*\}\}\n\n$/);
    expect(event.slice(6, -2)).toBe(text(errorBody(errors.TRUNCATED_STREAM)));
    expect(sseErrorEvent(errors.TRUNCATED_STREAM)).toBe(sseErrorEvent(errors.TRUNCATED_STREAM));
  });

  test('the Anthropic shape', () => {
    expect(json(anthropicErrorBody(errors.SLOTS_FULL, undefined, 'req_1'))).toEqual({
      type: 'error',
      error: { type: 'overloaded_error', message: errors.SLOTS_FULL.message },
      request_id: 'req_1',
    });
    expect(anthropicStatus(errors.SLOTS_FULL)).toBe(529);
    expect(anthropicStatus(errors.BAD_JSON)).toBe(400);
    const types = errorList.map((entry) => {
      const { error } = json(anthropicErrorBody(entry)) as { error: { type: string } };
      return `${entry.status} ${error.type}`;
    });
    expect([...new Set(types)].sort()).toMatchSnapshot();
  });
});

test('docs/errors.md is what the catalogue says', () => {
  expect(readFileSync('docs/errors.md', 'utf8')).toBe(errorsMarkdown());
  for (const entry of errorList) expect(errorsMarkdown()).toContain(`| ${entry.name} |`);
});
