/**
 * Why a request went to its replica, for the admin listener: the records of the explain ring with
 * names and the terms of the score. Main thread; reads only.
 *
 * What a record says is what the scheduler saw. Weights and costs of replicas are those of the present: a
 * reload in between shows in the score, not in the counts.
 */

import { filterNames } from '../dispatch/choice.ts';
import type { Terms } from '../dispatch/policies/policy.ts';
import { policyScore, sessionPolicy } from '../dispatch/policies/registry.ts';
import { hashSession } from '../protocol/request-keys.ts';
import { Chooser, explainRecords } from '../shm/explain.layout.ts';
import { type Explained, type ExplainedCandidate, ExplainReader } from '../shm/explain.ts';
import type { Member, Membership } from './membership.ts';

interface ModelName {
  readonly name: string;
  readonly policy: string;
}

export class ExplainView {
  readonly #reader: ExplainReader;
  readonly #models: readonly ModelName[];
  readonly #membership: Membership;
  readonly #hash = new Int32Array(2);

  constructor(region: SharedArrayBuffer, models: readonly ModelName[], membership: Membership) {
    this.#reader = new ExplainReader(region, explainRecords);
    this.#models = models;
    this.#membership = membership;
  }

  /** The attempts that are still recorded, newest first; undefined when none is. */
  ofRequest(requestId: string): unknown {
    hashSession(requestId, this.#hash, 0);
    const found = this.#reader.find(this.#hash[0] as number, this.#hash[1] as number);
    if (found.length === 0) return undefined;
    return { request_id: requestId, attempts: found.map((each) => this.#attempt(each)) };
  }

  #attempt(explained: Explained): unknown {
    const { model: row, chosenBy, replica, listed, tableVersion } = explained;
    const model = this.#models[row];
    const { formula, terms } = policyScore(nameOfPolicy(chosenBy, model));
    const members = new Map<number, Member>();
    for (const member of [...this.#membership, ...this.#membership.leaving]) {
      // A row that has been given to another replica since is not the one that was seen.
      if (((tableVersion - member.addedAt) | 0) > 0) members.set(member.row, member);
    }
    return {
      model: model?.name ?? null,
      policy: model?.policy ?? null,
      formula,
      chosen_by: chooserNames[chosenBy],
      attempt: explained.attempt,
      hedge: explained.hedge,
      replica: members.get(replica)?.name ?? null,
      queue_ms: explained.heldUs / 1000,
      prompt_tokens: explained.promptTokens,
      expected_output_tokens: explained.outputTokens,
      replicas_of_model: explained.members,
      candidates_total: explained.candidates,
      candidates: listed.map((each) =>
        candidateView(explained, each, members.get(each.row), terms),
      ),
      filtered: Object.fromEntries(
        filterNames.map((name, reason) => [snakeCase(name), explained.filtered[reason] ?? 0]),
      ),
    };
  }
}

const chooserNames = Object.keys(Chooser);

/** '' where nothing was weighed. */
function nameOfPolicy(chosenBy: number, model: ModelName | undefined): string {
  if (chosenBy === Chooser.pin) return '';
  return chosenBy === Chooser.session ? sessionPolicy : (model?.policy ?? '');
}

function candidateView(
  { promptTokens, outputTokens }: Explained,
  candidate: ExplainedCandidate,
  member: Member | undefined,
  terms: Terms | undefined,
): unknown {
  const score =
    member &&
    terms?.({
      ...candidate,
      ...{ promptTokens, outputTokens, weight: member.weight },
      ...{ prefillUs: member.cost.prefill_us, residentUs: member.cost.resident_us },
    });
  return {
    replica: member?.name ?? null,
    in_flight: candidate.inFlight,
    pending_tokens: candidate.pendingTokens,
    context_tokens: candidate.contextTokens,
    matched_tokens: candidate.matchedTokens,
    score: score === undefined ? null : rounded(score.score),
    terms: Object.fromEntries(
      Object.entries(score?.terms ?? {}).map(([name, value]) => [name, rounded(value)]),
    ),
  };
}

const snakeCase = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Six digits behind the point are more than any of the inputs has. */
const rounded = (value: number): number => Math.round(value * 1e6) / 1e6;
