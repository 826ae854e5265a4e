/**
 * What is counted of a request that is over: by route, by model and status, by tenant, and under the names of the
 * conventions for GenAI where these are wanted. Acceptor threads; never blocks, allocates nothing.
 */
import { isFollowed, type Route, routes } from '../protocol/routes.ts';
import { metrics } from '../telemetry/catalogue.ts';
import {
  defaultMetricDims,
  errorTypeIndex,
  errorTypes,
  methodIndex,
  modelIndex,
  Operation,
  routeIndex,
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

/** Every answer of the listener. */
export function countAnswer(
  { metrics: counters }: AcceptorState,
  route: Route | undefined,
  method: string,
  status: number,
  ms: number,
): void {
  const index = routeIndex(route?.id ?? -1);
  counters.addTriple(metrics.httpRequests, index, methodIndex(method), statusIndex(status), 1);
  counters.observe(metrics.httpDuration, index, ms * 1000);
}

/** Every request, also one that was refused at once; `model` is -1 where it is not known. */
export function countRequest(
  state: AcceptorState,
  { holder, route }: RequestFacts,
  model: number,
  status: number,
  ms: number,
  method: string = route?.method ?? '',
): void {
  const { metrics: counters } = state;
  countAnswer(state, route, method, status, ms);
  const index = modelIndex(model, defaultMetricDims);
  counters.addPair(metrics.requests, index, statusIndex(status), 1);
  counters.observe(metrics.requestDuration, index, ms * 1000);
  if (holder !== undefined) {
    counters.addPair(metrics.tenantRequests, holder.series, statusIndex(status), 1);
    counters.observe(metrics.tenantRequestDuration, holder.series, ms * 1000);
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
  // Without an attempt the row still has the time of another request.
  const untilFirstUs = hasTokens ? slots.readTime(slot, at.firstTokenUs) - facts.arrivedUs : 0;
  if (holder !== undefined) {
    const { series } = holder;
    const add = (type: TokenType, tokens: number | null): void =>
      counters.addTriple(metrics.tenantTokens, series, index, type, tokens ?? 0);
    add(TokenType.input, billed.input);
    add(TokenType.output, billed.output);
    add(TokenType.cached, billed.cached);
    if (untilFirstUs > 0) counters.observe(metrics.tenantFirstToken, series, untilFirstUs);
  }
  // Of a stream that ended well; 0: it is none.
  const firstUs = isWell && request.isEventStream ? Math.max(untilFirstUs, 0) : 0;
  const perTokenUs = firstUs > 0 && output > 1 ? (ms * 1000 - firstUs) / (output - 1) : 0;
  if (perTokenUs > 0) counters.observe(metrics.timePerOutputToken, index, perTokenUs);
  const operation = route === undefined ? undefined : operationOf[route.id];
  if (start.genai !== true || operation === undefined) return;
  const series = index * operations + operation;
  const ofError = series * errorTypes.length + errorTypeIndex(status, isWell);
  counters.observe(metrics.genaiDuration, ofError, ms * 1000);
  // Bounds are tokens, so observations are in millionths of one.
  if (input > 0) counters.observe(metrics.genaiTokens, series * tokenTypes, input * 1e6);
  if (output > 0) counters.observe(metrics.genaiTokens, series * tokenTypes + 1, output * 1e6);
  if (firstUs > 0) counters.observe(metrics.genaiFirstToken, series, firstUs);
  if (perTokenUs > 0) counters.observe(metrics.genaiPerToken, series, perTokenUs);
}
