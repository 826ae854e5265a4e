import { expect, test } from 'vitest';
import {
  ENGINE_MODELS,
  type EngineModel,
  engineModel,
  type StepLoad,
  stepMs,
} from '../../../../src/replica/engine/engine-model.ts';

const small = engineModel('8b-h100');
const large = engineModel('70b-h100x4');

function prefill(tokens: number, offset = 0): StepLoad {
  const attendedTokens = tokens * (offset + tokens / 2);
  return { decodes: 0, residentTokens: 0, prefillTokens: tokens, chunks: 1, attendedTokens };
}

function decode(decodes: number, residentTokens: number): StepLoad {
  return { decodes, residentTokens, prefillTokens: 0, chunks: 0, attendedTokens: 0 };
}

test('a step is the formula, worked out by hand', () => {
  // 64 decodes of 1,000 tokens and a chunk of 512 at 1,024: cbrt(6.3^3 + (2.2 + 0.0212 x 576)^3)
  const load: StepLoad = {
    decodes: 64,
    residentTokens: 64_000,
    prefillTokens: 512,
    chunks: 1,
    attendedTokens: 512 * (1024 + 256),
  };
  const roofsMs = Math.cbrt(250.047 + 14.4112 ** 3);
  expect(stepMs(small, load)).toBeCloseTo(roofsMs + 3.84 + 0.6946816 + 0.325, 9);
});

test('a decode alone costs a reading of the weights', () => {
  expect(stepMs(small, decode(1, 1000))).toBeCloseTo(6.3, 0);
  expect(stepMs(large, decode(1, 1000))).toBeCloseTo(17.2, 0);
  // BLIS puts the 8B step at 5.75 ms.
  expect(stepMs(small, decode(1, 1000)) / 5.75).toBeLessThan(1.2);
});

test('a prefill reaches the published share of the peak arithmetic', () => {
  // 66 % (8B) and 51 % (70B) of 989.5 TFLOP/s a card, by 2 x parameters x tokens/s.
  const share = (model: EngineModel, parameters: number, cards: number): number => {
    const tokens = 4096;
    return (2 * parameters * tokens) / (stepMs(model, prefill(tokens)) / 1000) / (cards * 989.5e12);
  };
  expect(share(small, 8.03e9, 1)).toBeCloseTo(0.66, 1);
  expect(share(large, 70.6e9, 4)).toBeCloseTo(0.51, 1);
});

test('what a prefill token adds is near the fit of another simulator', () => {
  // BLIS: 17.3 us a token for 8B, 76.4 us for 70B on four cards.
  const slopeUs = (model: EngineModel): number =>
    ((stepMs(model, prefill(2048)) - stepMs(model, prefill(1024))) / 1024) * 1000;
  expect(Math.abs(slopeUs(small) / 17.3 - 1)).toBeLessThan(0.4);
  expect(Math.abs(slopeUs(large) / 76.4 - 1)).toBeLessThan(0.25);
});

test('chunks of one prompt cost its attention once, whatever their size', () => {
  const whole = prefill(8192).attendedTokens;
  const halves = prefill(4096).attendedTokens + prefill(4096, 4096).attendedTokens;
  expect(halves).toBe(whole);
});

test('the constants are frozen and found by name', () => {
  expect([...ENGINE_MODELS.keys()]).toEqual(['8b-h100', '70b-h100x4']);
  for (const model of ENGINE_MODELS.values()) expect(Object.isFrozen(model)).toBe(true);
  expect(small.kvPages * small.pageTokens).toBe(448_000);
});
