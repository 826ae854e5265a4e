import { expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import {
  continueAfter,
  continueIds,
  findContinuation,
  promptTokenIds,
  renderChat,
  textOfPromptIds,
  tokenId,
  tokenSeries,
  tokensText,
  tokenText,
} from '../../../src/replica/tokens.ts';

const SEED = Number(process.env.SEED ?? 20261);

test('a token carries nonce and position, and depends on every byte of the prompt', () => {
  const series = tokenSeries('hello nonce=AB-1');
  expect(tokenText(series, 7)).toMatch(/^ AB-1:7:[0-9a-f]{8}$/);
  expect(tokenText(tokenSeries('hellp nonce=AB-1'), 7)).not.toBe(tokenText(series, 7));
  expect(tokenText(tokenSeries('hello nonce=AB-1', 1), 7)).not.toBe(tokenText(series, 7));
});

test('a text prompt continues at every cut of its answer, also inside a token', () => {
  const prompt = 'tell me nonce=Q [[utf8]]';
  const answer = tokensText(tokenSeries(prompt), 0, 6);
  for (let cut = 0; cut <= answer.length; cut++) {
    const delivered = answer.slice(0, cut);
    const { series, position, partial } = continueAfter(prompt, delivered) ?? expect.fail();
    expect(delivered + tokensText(series, position, 6).slice(partial)).toBe(answer);
  }
});

test('a completions prompt is cut where its own answer begins', () => {
  const prompt = `about Q:0: and w:0: nonce=Q first Q:0:zz`;
  const series = tokenSeries(prompt);
  const found = findContinuation(prompt + tokensText(series, 0, 3));
  expect(found).toEqual({ series, position: 3, partial: 0 });
});

test('a text that is not the answer is no continuation', () => {
  const prompt = 'x nonce=Q';
  const wrong = tokensText(tokenSeries('y nonce=Q'), 0, 2);
  expect(continueAfter(prompt, wrong)).toBeUndefined();
  expect(findContinuation(prompt + wrong).position).toBe(0);
});

test('token ids of a prompt are reversible and continue at the right token', () => {
  const random = createPrng(SEED);
  for (let round = 0; round < 200; round++) {
    const prompt = Array.from({ length: random.below(40) }, () =>
      String.fromCodePoint(random.below(0xd000)),
    ).join('');
    const ids = promptTokenIds(prompt);
    expect(textOfPromptIds(ids), `SEED=${SEED}`).toBe(prompt);
    const series = tokenSeries(prompt);
    const generated = Array.from({ length: random.below(9) }, (_, k) => tokenId(series, k));
    const found = continueIds([...ids, ...generated]);
    expect(found?.position, `SEED=${SEED}`).toBe(generated.length);
    expect(found?.series).toEqual(series);
  }
});

test('ids with a gap, a foreign token or an unknown id are refused', () => {
  const ids = promptTokenIds('p');
  const series = tokenSeries('p');
  expect(continueIds([...ids, tokenId(series, 1)])).toBeUndefined();
  expect(continueIds([...ids, tokenId(tokenSeries('other'), 0)])).toBeUndefined();
  for (const id of [-1, 0.5, Number.NaN, 5, 2 ** 24 + 256, 2 ** 40]) {
    expect(continueIds([id])).toBeUndefined();
  }
});

test('a rendered chat depends on roles, texts and parts', () => {
  const chat = renderChat([{ role: 'user', content: [{ type: 'text', text: 'hi' }] }]);
  expect(chat).toBe(renderChat([{ role: 'user', content: 'hi' }]));
  expect(chat).not.toBe(renderChat([{ role: 'system', content: 'hi' }]));
  expect(renderChat([{}, { content: [null, 4, { image_url: 'x' }] }])).toContain('<media:');
});
