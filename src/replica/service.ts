/**
 * From a request to its answer: authentication, routes, tags and faults, running slots.
 *
 * Runs on the replica's event loop; never blocks. What a request costs when no fault asks for more:
 * one JSON.parse, one checksum of the prompt, one write per step.
 */
import { createHash } from 'node:crypto';
import type { Prng } from '../lib/prng.ts';
import { type Answer, answerHead, GenerationAnswer, jsonAnswer, plainAnswer } from './answer.ts';
import { Attempt } from './attempt.ts';
import type { Connection } from './connection.ts';
import { type ControlTarget, controlRoute } from './control.ts';
import { errorAnswer, TOO_LONG } from './errors.ts';
import type { FaultScope } from './fault-rules.ts';
import { FaultScript } from './fault-script.ts';
import { type FaultPlan, readFaults, readFaultTags } from './faults.ts';
import {
  type Api,
  type Body,
  filtered,
  type Generation,
  generationRoutes,
  readGeneration,
} from './generation.ts';
import type { ParsedRequest, ParseFailure } from './http-parser.ts';
import { framingLines } from './http-writer.ts';
import { type LoraOptions, LoraShelf } from './lora-shelf.ts';
import { renderMetrics } from './metrics.ts';
import type { Profile } from './profile.ts';
import { ResponseStore } from './response-store.ts';
import type { RunningSlots } from './running-slots.ts';
import { mediaAnswer, SIDE_ROUTES } from './side-routes.ts';
import { AnswerSource, type Source } from './source.ts';
import type { AttemptRecord } from './stats.ts';

export interface ServiceOptions {
  readonly name: string;
  readonly model: string;
  readonly strictModel: boolean;
  readonly profile: Profile;
  readonly random: Prng;
  readonly apiKey: string;
  readonly recordRequests: boolean;
  readonly lora: LoraOptions;
}

interface Incoming {
  readonly connection: Connection;
  readonly request: ParsedRequest;
  readonly path: string;
  readonly record: AttemptRecord | undefined;
}

export class ReplicaService {
  readonly #engine: RunningSlots;
  readonly #options: ServiceOptions;
  readonly #control: ControlTarget;
  readonly #responses: ResponseStore;
  readonly #loras: LoraShelf;
  #answers = 0;

  constructor(options: ServiceOptions, control: ControlTarget, engine: RunningSlots) {
    this.#options = options;
    this.#control = control;
    this.#engine = engine;
    this.#responses = new ResponseStore(options.profile, options.random);
    this.#loras = new LoraShelf(options.lora);
  }

  onRequest(connection: Connection, request: ParsedRequest): void {
    const query = request.target.indexOf('?');
    const path = query < 0 ? request.target : request.target.slice(0, query);
    const api = request.method === 'POST' ? generationRoutes.get(path) : undefined;
    if (api === undefined) {
      this.#side(connection, request, path);
      return;
    }
    const incoming = this.#incoming(connection, request, path);
    if (!this.#authorized(request)) this.#unauthorized(incoming);
    else this.#generate(incoming, api);
  }

  onBadRequest(failure: ParseFailure): string {
    this.#control.stats.badRequests++;
    this.#control.stats.changed();
    const answer = errorAnswer(failure.status, failure.message, '');
    const body = answer.body();
    return answerHead(answer) + framingLines('length', body.length, false) + body;
  }

  #incoming(connection: Connection, request: ParsedRequest, path: string): Incoming {
    const record = this.#control.stats.begin(request.requestId, path, request.body.length);
    if (this.#options.recordRequests) {
      record.head = request.raw;
      record.bodySha256 = sha256(request.body);
    }
    return { connection, request, path, record };
  }

  #authorized({ authorization, apiKey }: ParsedRequest): boolean {
    const wanted = this.#options.apiKey;
    return wanted === '' || authorization === `Bearer ${wanted}` || apiKey === wanted;
  }

  #unauthorized(incoming: Incoming): void {
    const answer = errorAnswer(401, 'bad key', incoming.path, 'invalid_api_key');
    this.#answer(incoming, answer, {}, false);
  }

  #generate(incoming: Incoming, api: Api): void {
    const { request, path, record } = incoming;
    const body = parseObject(request.body);
    const generation =
      body === undefined
        ? 'the body is not a JSON object'
        : readGeneration(api, body, this.#options.profile);
    if (typeof generation === 'string') {
      this.#answer(incoming, errorAnswer(400, generation, path), {}, false);
      return;
    }
    if (this.#options.strictModel && !this.#serves(generation.model)) {
      const message = `The model ${generation.model} does not exist.`;
      this.#answer(incoming, errorAnswer(404, message, path, 'model_not_found'), {}, false);
      return;
    }
    const tooLong = this.#engine.refusal(generation);
    if (tooLong !== undefined) {
      const answer = errorAnswer(400, tooLong, path, 'context_length_exceeded');
      this.#answer(incoming, answer, {}, false);
      return;
    }
    const unknown = api === 'responses' ? this.#responses.problem(body ?? {}, path) : undefined;
    if (unknown !== undefined) {
      this.#answer(incoming, unknown, {}, false);
      return;
    }
    const plan: FaultPlan = {};
    const problem = this.#readPlan(incoming, generation, plan);
    if (problem !== undefined) {
      this.#answer(incoming, errorAnswer(400, problem, path), {}, false);
      return;
    }
    if (record !== undefined) this.#noteGeneration(record, generation);
    const known = {
      ...spoiled(generation, plan),
      ...(plan.noTokenIds === true ? { returnTokenIds: false } : {}),
      ...(plan.noUsage === true ? { includeUsage: false, continuousUsage: false } : {}),
    };
    const answer =
      this.#faultAnswer(plan, path, generation) ??
      this.#generationAnswer(request, known, body ?? {}, plan.unsure === 'header');
    const held = this.#control.gate.holdAll || generation.tagged.includes('[[hold]]');
    const generates = answer instanceof GenerationAnswer;
    this.#answer(incoming, answer, plan, held, generates ? generation : undefined);
  }

  #serves(model: string): boolean {
    return model === this.#options.model || this.#loras.serves(model, this.#options.model);
  }

  #noteGeneration(record: AttemptRecord, generation: Generation): void {
    const { stats } = this.#control;
    const first = generation.choices[0];
    record.nonce = first?.series.nonce ?? '';
    record.startToken = first?.start ?? 0;
    if (generation.continuation) stats.continuations++;
    if (generation.mismatch) stats.continuationMismatches++;
  }

  /** Collects the faults of tags, header and rules; a message when one cannot be read. */
  #readPlan(incoming: Incoming, generation: Generation, plan: FaultPlan): string | undefined {
    const { request } = incoming;
    if (request.fault !== '') {
      const problem = readFaults(request.fault, plan);
      if (problem !== undefined) return problem;
    }
    if (generation.tagged.includes('[[fault')) {
      const problem = readFaultTags(generation.tagged, this.#options.name, plan);
      if (problem !== undefined) return problem;
    }
    if (this.#control.rules.empty) return undefined;
    const nonce = generation.choices[0]?.series.nonce ?? '';
    this.#control.rules.apply('generate', request.requestId, nonce, plan);
    return undefined;
  }

  /** The answer instead of the tokens, when a fault asks for one. */
  #faultAnswer(plan: FaultPlan, path: string, generation?: Generation): Answer | undefined {
    if (plan.refuseContinuation === true && generation?.continuation === true) {
      return errorAnswer(400, 'continuation is not supported', path);
    }
    const tooLong = TOO_LONG[plan.tooLong ?? ''];
    if (tooLong !== undefined) {
      const [status, code, message] = tooLong;
      return errorAnswer(status, message, path, code);
    }
    if (plan.okError === true) {
      const failed = errorAnswer(500, 'simulated failure', path, 'simulated');
      return plainAnswer(200, 'application/json', failed.body());
    }
    if (plan.status === undefined || plan.status === 200) return undefined;
    const retry =
      plan.retryAfterS === undefined
        ? ''
        : `retry-after: ${plan.retryAfterS}\r\nretry-after-ms: ${plan.retryAfterS * 1000}\r\n`;
    return errorAnswer(plan.status, 'simulated failure', path, 'simulated', retry);
  }

  #generationAnswer(
    request: ParsedRequest,
    generation: Generation,
    body: Body,
    isUnsure: boolean,
  ): Answer {
    const { profile, random, name, model } = this.#options;
    const id = `${name}-${++this.#answers}`;
    const named = generation.model === '' ? { ...generation, model } : generation;
    let headers = request.requestId === '' ? '' : `x-request-id: ${request.requestId}\r\n`;
    if (generation.tagged.includes('[[sha]]')) headers += bodyFacts(request.body);
    if (isUnsure) headers += 'x-low-confidence: 1\r\n';
    const created = Math.floor(Date.now() / 1000);
    if (generation.api === 'responses') {
      return this.#responses.keep(`resp_${id}`, body, named, created, headers);
    }
    return new GenerationAnswer(named, id, created, profile, random, headers);
  }

  #side(connection: Connection, request: ParsedRequest, path: string): void {
    const control = controlRoute(request.method, path);
    if (control !== undefined) {
      const url = new URL(`http://replica${request.target}`);
      this.#answerLater(connection, request, () => control(this.#control, url, request.body));
      return;
    }
    const read = this.#readAnswer(request.method, path);
    if (read !== undefined) {
      const scope: FaultScope = path.startsWith('/v1/models') ? 'models' : 'health';
      this.#answerSide({ connection, request, path, record: undefined }, read, scope);
      return;
    }
    const incoming = this.#incoming(connection, request, path);
    if (path.startsWith('/v1/') && !this.#authorized(request)) this.#unauthorized(incoming);
    else this.#answerSide(incoming, this.#sideAnswer(request, path), 'generate');
  }

  #answerSide(incoming: Incoming, answer: Answer, scope: FaultScope): void {
    const { request, path } = incoming;
    const plan: FaultPlan = {};
    if (request.fault !== '') {
      const problem = readFaults(request.fault, plan);
      if (problem !== undefined) {
        this.#answer(incoming, errorAnswer(400, problem, path), {}, false);
        return;
      }
    }
    this.#control.rules.apply(scope, request.requestId, '', plan);
    const held = scope === 'generate' && this.#control.gate.holdAll;
    this.#answer(incoming, this.#faultAnswer(plan, path) ?? answer, plan, held);
  }

  #readAnswer(method: string, path: string): Answer | undefined {
    if (method !== 'GET') return undefined;
    const { model } = this.#options;
    switch (path) {
      case '/health':
      case '/healthz':
        return plainAnswer(200, 'text/plain', '');
      case '/metrics': {
        const stats = this.#control.stats.snapshot();
        const text = renderMetrics(stats, model, this.#engine.cacheFigures());
        return plainAnswer(200, 'text/plain; version=0.0.4', text);
      }
      case '/v1/models': {
        const own = { id: model, object: 'model', created: 0, owned_by: 'sluice' };
        return jsonAnswer(200, { object: 'list', data: [own, ...this.#loras.models(model)] });
      }
      default:
        return undefined;
    }
  }

  #sideAnswer(request: ParsedRequest, path: string): Answer {
    if (path.startsWith('/v1/responses/')) {
      return this.#responses.answer(request.method, request.target);
    }
    const asked = request.method === 'POST' ? parseObject(request.body) : undefined;
    const ofLoras = this.#loras.answer(path, asked ?? {});
    if (request.method === 'POST' && ofLoras !== undefined) return ofLoras;
    const route = SIDE_ROUTES.get(path);
    const known = route !== undefined || generationRoutes.has(path);
    if (request.method !== 'POST') {
      return errorAnswer(known ? 405 : 404, `no ${request.method} on this path`, path);
    }
    if (route === undefined) {
      return (
        mediaAnswer(path, request.contentType, request.body) ??
        errorAnswer(404, 'unknown path', path)
      );
    }
    const answer = asked === undefined ? 'the body is not a JSON object' : route(asked);
    return typeof answer === 'string' ? errorAnswer(400, answer, path) : answer;
  }

  #answer(
    incoming: Incoming,
    answer: Answer,
    plan: FaultPlan,
    held: boolean,
    generation?: Generation,
  ): void {
    const { connection, request, record } = incoming;
    const chunkedAllowed = request.minorVersion === 1;
    let source: Source;
    let faulty = false;
    for (const key in plan) {
      faulty = true;
      if (record !== undefined) record.fault += `${key} `;
    }
    if (faulty) {
      this.#control.stats.faultsApplied++;
      source = new FaultScript(answer, plan, request.keepAlive, chunkedAllowed);
    } else {
      source = new AnswerSource(answer, request.keepAlive, chunkedAllowed);
    }
    if (record !== undefined) record.status = answer.status;
    new Attempt(this.#engine, connection, source, record, generation).begin(held);
  }

  /** Control answers may wait, for the gate or for a listener. */
  #answerLater(
    connection: Connection,
    request: ParsedRequest,
    answer: () => Promise<Answer>,
  ): void {
    let gone = false;
    connection.begin({
      onClientGone: () => {
        gone = true;
      },
      onDrain: () => {},
    });
    void answer().then((later) => {
      if (gone) return;
      const body = later.body();
      const framing = framingLines('length', body.length, request.keepAlive);
      connection.write(answerHead(later) + framing + body);
      connection.done(request.keepAlive);
    });
  }
}

/** The generation as the faults of what its model says have it. */
function spoiled(generation: Generation, { refusal, filtered: isFiltered, ...plan }: FaultPlan) {
  const hasRefusals = generation.api === 'chat' || generation.api === 'responses';
  const isEmpty = isFiltered === true || (refusal === true && !hasRefusals);
  return {
    ...(isEmpty ? filtered(generation) : generation),
    refuses: refusal === true && hasRefusals,
    isUnsure: plan.unsure === 'field',
    logprob: plan.logprob === undefined ? undefined : -plan.logprob / 100,
  };
}

function parseObject(bytes: Buffer): Body | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString());
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? (value as Body) : undefined;
  } catch {
    return undefined;
  }
}

function bodyFacts(body: Buffer): string {
  return `x-replica-body-bytes: ${body.length}\r\nx-replica-body-sha256: ${sha256(body)}\r\n`;
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
