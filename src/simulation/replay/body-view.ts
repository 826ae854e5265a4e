/**
 * What a gateway reads off logged requests: the acceptor's own scan of the same bytes, and the headers
 * that steer it. Pure.
 *
 * Token counts are the brain's estimates from bytes, as they are when it serves.
 */

import type { ModelRef } from '../../config/model-names.ts';
import type { Arrival } from '../../dispatch/arrival.ts';
import { unlimited } from '../../dispatch/limit-rows.ts';
import { unpinned } from '../../dispatch/pins.ts';
import { errorOf } from '../../errors/catalogue.ts';
import { adapterSalt } from '../../lib/adapter-salt.ts';
import { prefixBlockBytes } from '../../protocol/prefix-hash.ts';
import { createRequestFacts } from '../../protocol/request-facts.ts';
import { hashSession, tenantLane, tenantLanes } from '../../protocol/request-keys.ts';
import { scanRequest } from '../../protocol/request-scanner.ts';
import type { RequestView } from '../request-view.ts';
import { type LoggedRequest, ReplayError } from './request-log.ts';

type Names = ReadonlyMap<string, ModelRef>;

/** Everything the brain is told of a request but where it is kept and when it came. */
type Told = Omit<Arrival, 'slot' | 'generation' | 'publishedUs' | 'deadlineUs'>;

interface Seen {
  readonly told: Told;
  readonly deadlineUs: number;
  readonly hashes: Int32Array;
  readonly tellsUsage: boolean;
}

export class BodyView implements RequestView {
  readonly tenants = tenantLanes;
  readonly blockBytes = prefixBlockBytes;
  readonly #seen: readonly Seen[];

  /** `totalUs`: deadline of a request that asks for none. */
  constructor(requests: readonly LoggedRequest[], names: Names, totalUs: number) {
    this.#seen = requests.map((request) => see(request, names, totalUs));
  }

  /** Index of the model that all requests are for; they are for one. */
  model(request: number): number {
    return this.#at(request).told.model;
  }

  read(request: number, nowUs: number, arrival: Arrival): void {
    const { told, deadlineUs } = this.#at(request);
    Object.assign(arrival, told);
    arrival.deadlineUs = nowUs + deadlineUs;
  }

  writeHashes(request: number, words: Int32Array, at: number): number {
    const { hashes } = this.#at(request);
    words.set(hashes, at);
    return hashes.length / 2;
  }

  streams(request: number): boolean {
    return this.#at(request).told.streams;
  }

  tellsUsage(request: number): boolean {
    return this.#at(request).tellsUsage;
  }

  #at(request: number): Seen {
    return this.#seen[request] as Seen;
  }
}

const facts = createRequestFacts();
const pair = new Int32Array(2);

function see(request: LoggedRequest, names: Names, totalUs: number): Seen {
  const { body, headers, line, path } = request;
  const error = scanRequest(body, body.length, facts);
  if (error !== 0) throw new ReplayError(line, errorOf(error).hint);
  const named = names.get(facts.model);
  if (named === undefined) throw new ReplayError(line, `unknown model ${facts.model}`);
  const { model, adapter } = named;
  const salt = adapterSalt(adapter);
  const [head0 = 0, head1 = 0] = facts.headHash;
  const hasHead = head0 !== 0 || head1 !== 0;
  hashSession(headers.get('x-session-id') || facts.sessionKey, pair, 0);
  const [session0 = 0, session1 = 0] = pair;
  return {
    told: {
      ...{ model, askedModel: model, adapter, promptTokens: 0 },
      ...{ promptBytes: facts.promptBytes, textBytes: facts.textBytes, readsMore: facts.readsMore },
      ...{ maxTokens: facts.maxTokens, streams: facts.stream },
      priority: numberOf(request, 'x-sluice-priority', -100, 100) ?? 0,
      ...unlimited,
      ...unpinned, // and remembers nothing
      tenant: tenantLane(headers.get('authorization') ?? ''),
      ...{ session0, session1 },
      hedgeUs: -1, // a request of a simulation runs on one replica at a time
      ...{ batch0: 0, batch1: 0 }, // modelled replicas answer one prompt at a time
      ...{ head0: hasHead ? head0 ^ salt : 0, head1: hasHead ? head1 ^ salt : 0 },
    },
    deadlineUs: (numberOf(request, 'x-sluice-deadline-ms', 1, 86_400_000) ?? totalUs / 1000) * 1000,
    hashes: facts.prefixHashes.slice(0, 2 * facts.prefixCount).map((word) => word ^ salt),
    // An OpenAI stream says what it took only when asked; every other answer does.
    tellsUsage: !facts.stream || facts.includeUsage || !path.endsWith('completions'),
  };
}

function numberOf(
  { headers, line }: LoggedRequest,
  name: string,
  min: number,
  max: number,
): number | undefined {
  const text = headers.get(name);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new ReplayError(line, `${name} must be a whole number from ${min} to ${max}`);
}
