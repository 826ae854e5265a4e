import { Buffer } from 'node:buffer';
import { expect, test } from 'vitest';
import { isContextOverflow, mayBeOverflow } from '../../../src/protocol/context-overflow.ts';
import { errorAnswer, TOO_LONG } from '../../../src/replica/errors.ts';

test.each(Object.entries(TOO_LONG))('%s says that a prompt is too long', (_, said) => {
  const [status, code, message] = said;
  expect(mayBeOverflow(status)).toBe(true);
  const { body } = errorAnswer(status, message, '/', code);
  expect(isContextOverflow(Buffer.from(body()))).toBe(true);
});

test('other errors of clients are not taken for it', () => {
  for (const message of [
    'max_tokens must be at least 1',
    'the model does not exist',
    'context',
    `${'x'.repeat(20_000)} maximum context length`,
  ]) {
    expect(isContextOverflow(Buffer.from(JSON.stringify({ error: { message } })))).toBe(false);
  }
  for (const status of [200, 401, 404, 429, 500]) expect(mayBeOverflow(status)).toBe(false);
});
