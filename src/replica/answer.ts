/**
 * One answer of a simulated replica before it is bytes on a socket: its head, its payload in steps,
 * and when each step is due. Pure; http framing and faults are added by source.ts and fault-script.ts.
 */

import type { Prng } from '../lib/prng.ts';
import type { Generation } from './generation.ts';
import { headLines, wireJson } from './http-writer.ts';
import { firstTokenMs, type Profile } from './profile.ts';
import { choiceText, type Shape, stepText, tokensThrough } from './shape.ts';
import { createAnthropicShape } from './shape-anthropic.ts';
import { createOpenAiShape } from './shape-openai.ts';
import { createResponsesShape } from './shape-responses.ts';

export interface Answer {
  readonly status: number;
  readonly contentType: string;
  /** Further header lines, each with its CRLF. */
  readonly headers: string;
  readonly stream: boolean;
  /** What a stream that fails ends with. */
  readonly errorEvent: string;
  /** Steps of a stream; a whole answer of a generation has them too, all sent together. */
  readonly steps: number;
  /** Tokens of the first choice that came before this answer. */
  readonly start: number;
  /** Delay of the head, of the first step, and between steps. */
  readonly headMs: number;
  readonly firstStepMs: number;
  readonly stepMs: number;
  /** Tokens of all choices after `step`; -1 is before the first. */
  tokensAfter(step: number): number;
  /** Payload of one step of a stream. */
  payload(step: number): string;
  /** Payload of an answer that is no stream. */
  body(): string;
  /** Token text of the first choice at `step`, to find it in body(). */
  tokenAt(step: number): string;
}

const EVENT_STREAM = 'text/event-stream; charset=utf-8';
const ERROR_EVENT =
  'data: {"error":{"message":"simulated failure","type":"server_error","param":null,"code":500}}\n\n';
const ANTHROPIC_ERROR_EVENT =
  'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"simulated failure"}}\n\n';
const STREAM_HEADERS = 'cache-control: no-cache\r\nx-accel-buffering: no\r\n';

export function plainAnswer(
  status: number,
  contentType: string,
  body: string,
  headers = '',
): Answer {
  return {
    status,
    contentType,
    headers,
    stream: false,
    errorEvent: '',
    steps: 0,
    start: 0,
    headMs: 0,
    firstStepMs: 0,
    stepMs: 0,
    tokensAfter: () => 0,
    payload: () => '',
    body: () => body,
    tokenAt: () => '',
  };
}

export function jsonAnswer(status: number, value: unknown, headers = ''): Answer {
  return plainAnswer(status, 'application/json', wireJson(value), headers);
}

/** Head of an answer up to the framing lines. */
export function answerHead(answer: Answer): string {
  return headLines(answer.status, answer.contentType, answer.headers);
}

export class GenerationAnswer implements Answer {
  readonly status = 200;
  readonly contentType: string;
  readonly headers: string;
  readonly stream: boolean;
  readonly errorEvent: string;
  readonly steps: number;
  readonly start: number;
  readonly headMs: number;
  readonly firstStepMs: number;
  readonly stepMs: number;
  readonly #generation: Generation;
  readonly #shape: Shape;

  constructor(
    generation: Generation,
    id: string,
    created: number,
    profile: Profile,
    random: Prng,
    headers: string,
  ) {
    this.#generation = generation;
    this.#shape = shapeOf(generation, id, created);
    this.stream = generation.stream;
    this.errorEvent = generation.api === 'messages' ? ANTHROPIC_ERROR_EVENT : ERROR_EVENT;
    this.contentType = this.stream ? EVENT_STREAM : 'application/json';
    this.headers = this.stream ? STREAM_HEADERS + headers : headers;
    this.steps = generation.steps;
    this.start = generation.choices[0]?.start ?? 0;
    const firstMs = firstTokenMs(profile, random);
    this.stepMs = profile.interTokenMs;
    const tailMs = profile.wholeWaitsForTokens ? this.stepMs * (this.steps - 1) : 0;
    this.headMs = this.stream ? (profile.headFirst ? 0 : firstMs) : firstMs + tailMs;
    this.firstStepMs = this.stream ? firstMs - this.headMs : 0;
  }

  tokensAfter(step: number): number {
    return tokensThrough(this.#generation, step);
  }

  payload(step: number): string {
    const { choices } = this.#generation;
    let text = step === 0 ? this.#shape.open() : '';
    for (let i = 0; i < choices.length; i++) {
      const choice = choices[i];
      if (choice === undefined || (step > 0 && step >= choice.length)) continue;
      text += this.#shape.delta(i, step, stepText(choice, step), step >= choice.length - 1);
    }
    return step === this.steps - 1 ? text + this.#shape.close() : text;
  }

  body(): string {
    return this.#shape.whole(this.#generation.choices.map(choiceText));
  }

  tokenAt(step: number): string {
    const choice = this.#generation.choices[0];
    return choice === undefined ? '' : stepText(choice, step);
  }
}

function shapeOf(generation: Generation, id: string, created: number): Shape {
  if (generation.api === 'messages') return createAnthropicShape(generation, id);
  if (generation.api === 'responses') return createResponsesShape(generation, id, created);
  return createOpenAiShape(generation, id, created);
}
