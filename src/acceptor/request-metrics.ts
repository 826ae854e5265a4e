/**
 * What is counted of a request that is over: by model and status, by tenant, and under the names of the
 * conventions for GenAI where these are wanted. Acceptor threads; never blocks, allocates nothing.
 */
import { isFollowed, type Route, routes } from '../protocol/routes.ts';
import { metrics } from '../telemetry/catalogue.ts';
import {
  defaultMetricDims,
  errorTypeIndex,
  errorTypes,
  modelIndex,
  Operation,
  statusIndex,
  TokenType,
} from '../telemetry/labels.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Billed } from './billed.ts';
import type { Request, RequestFacts } from './request.ts';

const operations = Object.keys(Operation).length;
const tokenTypes = 2;

/** By route id; undefined: the conventions have no name for it. */
const operationOf: readonly (Operation | undefined)[] = routes.reduce<(Operation | undefined)[]>(
  (all, { id, path, shape }) => {
    if (shape === 'openai-completions') all[id] = Operation.text_completion;
    else if (isFollowed(shape)) all[id] = Operation.chat;
    else if (path === '/v1/embeddings') all[id] = Operation.embeddings;
    return all;
  },
  [],
);

/** Every request, also one that was refused at once; `model` is -1 where it is not known. */
export function countRequest(
  { metrics: counters }: AcceptorState,
  { holder }: RequestFacts,
  model: number,
  status: number,
  ms: number,
): void {
  const index = modelIndex(model, defaultMetricDims);
  counters.addPair(metrics.requests, index, statusIndex(status), 1);
  counters.observe(metrics.requestDuration, index, ms * 1000);
  if (holder !== undefined) {
    counters.addPair(metrics.tenantRequests, holder.series, statusIndex(status), 1);
  }
}

/** A request that a replica was given, besides: what it is billed for, and what was counted of it. */
export function countOutcome(
  state: AcceptorState,
  request: Request,
  billed: Billed,
  isWell: boolean,
  status: number,
  ms: number,
): void {
  const { slots, metrics: counters, start } = state;
  const { facts, slot } = request;
  const { holder, route } = facts;
  if (holder === undefined && start.genai !== true) return;
  const hasTokens = slots.attempts(slot) > 0;
  const { words, at } = slots;
  const row = slots.row(slot);
  // Tokens are of the model that served, which is not the one it came for where that fell back.
  const model = hasTokens ? (words[row + at.model] as number) : request.model;
  const index = modelIndex(model, defaultMetricDims);
  const read = (field: number): number =>
    hasTokens ? Math.max(words[row + field] as number, 0) : 0;
  const input = read(at.promptTokens);
  const output = read(at.completionTokens);
  if (holder !== undefined) {
    const { series } = holder;
    const add = (type: TokenType, tokens: number | null): void =>
      counters.addTriple(metrics.tenantTokens, series, index, type, tokens ?? 0);
    add(TokenType.input, billed.input);
    add(TokenType.output, billed.output);
    add(TokenType.cached, billed.cached);
  }
  if (start.genai !== true) return;
  const errorType = errorTypeIndex(status, isWell);
  observeGenai(state, request, route, index, input, output, errorType, ms);
}

function observeGenai(
  { slots, metrics: counters }: AcceptorState,
  { facts, slot, isEventStream }: Request,
  route: Route | undefined,
  model: number,
  input: number,
  output: number,
  errorType: number,
  ms: number,
): void {
  const operation = route === undefined ? undefined : operationOf[route.id];
  if (operation === undefined) return;
  const series = model * operations + operation;
  counters.observe(metrics.genaiDuration, series * errorTypes.length + errorType, ms * 1000);
  // Bounds are tokens, so observations are in millionths of one.
  if (input > 0) counters.observe(metrics.genaiTokens, series * tokenTypes, input * 1e6);
  if (output > 0) counters.observe(metrics.genaiTokens, series * tokenTypes + 1, output * 1e6);
  const firstUs = slots.readTime(slot, slots.at.firstTokenUs) - facts.arrivedUs;
  if (errorType !== 0 || !isEventStream || firstUs <= 0) return;
  counters.observe(metrics.genaiFirstToken, series, firstUs);
  if (output > 1) {
    counters.observe(metrics.genaiPerToken, series, (ms * 1000 - firstUs) / (output - 1));
  }
}
