/**
 * A replay: logged requests as a workload for modelled engines, and the gateway that a config
 * describes before them. Pure.
 *
 * An engine counts the tokens of a prompt as `sluice replica` does, so that both hold the same blocks
 * and report the same usage. Only requests of one model, with one answer each.
 */
import { adapterBits, adaptersOf, loadableAdapters } from '../../config/adapters.ts';
import { namesOf } from '../../config/model-names.ts';
import { identityOf, modelRules, rateTerms, schedulingLimits } from '../../config/scheduling.ts';
import type { Config, ModelConfig } from '../../config/schema.ts';
import type { ReplicaFacts } from '../../dispatch/replica-state.ts';
import { assert } from '../../lib/assert.ts';
import { tenantLanes } from '../../protocol/request-keys.ts';
import type { EngineModel } from '../../replica/engine/engine-model.ts';
import { type Choice, generationRoutes, readGeneration } from '../../replica/generation.ts';
import { type Profile, parseProfile } from '../../replica/profile.ts';
import { promptBlocks } from '../../replica/prompt-blocks.ts';
import type { GatewaySetup } from '../gateway-setup.ts';
import { type Arrival, packWorkload, type Workload } from '../workload.ts';
import { BodyView } from './body-view.ts';
import { type LoggedRequest, ReplayError } from './request-log.ts';

export interface Replay {
  readonly workload: Workload;
  readonly model: ModelConfig;
  /** The configured gateway, with another policy for the model when one is given. */
  gateway(policy?: string): GatewaySetup;
}

/** `requests` in order of arrival, at least one. */
export function createReplay(
  requests: readonly LoggedRequest[],
  config: Config,
  engine: EngineModel,
): Replay {
  const limits = schedulingLimits(config);
  const { queueMax, queueTimeout: queueTimeoutMs, retry, breaker, slowStartUs } = limits;
  // A model serves a log by itself: who of a split would have is another gateway's to say.
  const names = namesOf({ models: config.models, splits: [] });
  const view = new BodyView(requests, names, limits.totalTimeout * 1000);
  const index = view.model(0);
  const other = requests.findIndex((_, i) => view.model(i) !== index);
  if (other >= 0) throw new ReplayError(requests[other]?.line ?? 0, 'is for another model');
  const model = config.models[index];
  assert(model !== undefined, 'a known name is that of a model');
  return {
    workload: workloadOf(requests, engine),
    model,
    gateway: (policy = model.policy) => ({
      view,
      models: config.models.map((of) => ({
        ...modelRules(of),
        ...(of === model ? { policy } : {}),
        holdTokens: limits.holdTokens,
      })),
      ...{ queueMax, queueTimeoutMs, retry, breaker, slowStartUs },
      facts: (row) => factsOf(model, index, row),
    }),
  };
}

function factsOf(
  of: ModelConfig,
  model: number,
  row: number,
): Omit<ReplicaFacts, 'epoch' | 'healthy'> {
  const replica = of.replicas[row];
  assert(replica !== undefined, 'the replica is in the config');
  const adapters = adapterBits(adaptersOf(of), [...replica.adapters, ...loadableAdapters(of)]);
  return {
    ...{ model, active: true, adapters, identity: identityOf(replica.url) },
    ...{ weight: replica.weight, maxInFlight: replica.max_in_flight, kvTokens: replica.kv_tokens },
    ...{ prefillUs: replica.prefill_us, residentUs: replica.resident_us },
    rate: rateTerms(replica.limits),
  };
}

function workloadOf(requests: readonly LoggedRequest[], engine: EngineModel): Workload {
  const profile = parseProfile(`engine:${engine.name}`);
  assert(typeof profile !== 'string', 'every engine has a profile');
  const dense = new Map<number, number>();
  const idOf = (hash: number): number => {
    const id = dense.get(hash) ?? dense.size;
    dense.set(hash, id);
    return id;
  };
  const arrivals = requests.map((request): Arrival => {
    const choice = choiceOf(request, profile);
    const blocks = promptBlocks(choice.prompt.content, engine.pageTokens);
    const promptTokens = Math.max(1, choice.prompt.tokens);
    const outputTokens = request.outputTokens ?? Math.max(1, choice.length);
    if (promptTokens + outputTokens > engine.kvPages * engine.pageTokens) {
      throw new ReplayError(request.line, 'does not fit into the KV cache of a replica');
    }
    return {
      ...{ arrivalUs: request.atUs, promptTokens, outputTokens },
      tenant: 0,
      blocks: Array.from(blocks, idOf),
    };
  });
  const { pageTokens } = engine;
  const shape = { blockTokens: pageTokens, tenantCount: tenantLanes, commonBlocks: 0 };
  return packWorkload(arrivals, { ...shape, blockCount: dense.size });
}

function choiceOf({ line, path, body }: LoggedRequest, profile: Profile): Choice {
  const api = generationRoutes.get(path);
  if (api === undefined) throw new ReplayError(line, `${path} generates nothing`);
  const generation = readGeneration(api, JSON.parse(body.toString()), profile);
  if (typeof generation === 'string') throw new ReplayError(line, generation);
  const [choice, another] = generation.choices;
  if (choice === undefined || another !== undefined) {
    throw new ReplayError(line, 'more than one answer to a request is not simulated');
  }
  return choice;
}
