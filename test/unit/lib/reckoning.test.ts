/** What is set aside and billed leans to what costs. */
import { expect, test } from 'vitest';
import { Reckoning } from '../../../src/lib/reckoning.ts';

test('it begins with four bytes for a token and 256 tokens of an answer', () => {
  const reckoning = new Reckoning();
  expect(reckoning.promptTokens(4000)).toBe(1000);
  expect(reckoning.promptTokens(1)).toBe(1);
  expect(reckoning.promptTokens(0)).toBe(1);
  expect(reckoning.outputTokens).toBe(256);
});

test('a dense prompt is learnt in a few requests, thin ones take a hundred to be believed', () => {
  const reckoning = new Reckoning();
  for (let i = 0; i < 5; i++) reckoning.learn(10_000, 10_000, 0);
  expect(reckoning.promptTokens(4000)).toBeGreaterThan(3500);
  for (let i = 0; i < 10; i++) reckoning.learn(10_000, 100, 0);
  expect(reckoning.promptTokens(4000)).toBeGreaterThan(900);
  for (let i = 0; i < 500; i++) reckoning.learn(10_000, 100, 0);
  expect(reckoning.promptTokens(4000)).toBe(251); // no ratio above 16 is believed
});

test('short prompts are mostly template and teach nothing', () => {
  const reckoning = new Reckoning();
  for (let i = 0; i < 50; i++) reckoning.learn(20, 60, 0);
  expect(reckoning.promptTokens(4000)).toBe(1000);
});

test('of answers it is nearly the longest, never less than at first, and no more than it is told', () => {
  const reckoning = new Reckoning();
  for (let i = 0; i < 100; i++) reckoning.learn(0, -1, 10);
  expect(reckoning.outputTokens).toBe(256);
  for (let i = 0; i < 8; i++) reckoning.learn(0, -1, 5000);
  expect(reckoning.outputTokens).toBeGreaterThan(4900);
  for (let i = 0; i < 20; i++) reckoning.learn(0, -1, 4000);
  expect(reckoning.outputTokens).toBeGreaterThan(4300);
  for (let i = 0; i < 20; i++) reckoning.learn(0, -1, 1e9, 6000);
  expect(reckoning.outputTokens).toBeLessThanOrEqual(6000);
});
