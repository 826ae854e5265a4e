/**
 * Requests as undici takes them, from what acceptors left in the arena. Forwarder threads.
 *
 * The body of one request is a view of the arena, which holds it until the slot is settled. That of a
 * batch is a copy: `[prompt, prompt, …]` between what stands before and behind the prompt of its first
 * member, byte by byte the same for all of them, as are the headers but for those that name a request.
 */
import { Buffer } from 'node:buffer';
import type { Dispatcher } from 'undici';
import { assert } from '../lib/assert.ts';
import { routeOf } from '../protocol/routes.ts';
import type { RequestSlots } from '../shm/request-slots.ts';
import type { ReplicaPool } from './pools.ts';
import { type UpstreamHead, upstreamHead } from './upstream-head.ts';

export interface UpstreamRequest extends UpstreamHead {
  readonly body: Buffer | null;
}

/** Of the first member only; replicas use them for their logs and traces. */
const ofOneRequest: ReadonlySet<string> = new Set(['traceparent', 'tracestate', 'x-request-id']);
/** A replica may remember the answer under the key, and that is not to be the one of a batch. */
const alone = 'idempotency-key';

interface MergedMember {
  readonly slot: number;
  readonly request: UpstreamRequest;
}

export class UpstreamRequests {
  readonly #slots: RequestSlots;
  readonly #arena: Uint8Array;

  constructor(slots: RequestSlots, arena: Uint8Array) {
    this.#slots = slots;
    this.#arena = arena;
  }

  of(slot: number, pool: ReplicaPool): UpstreamRequest {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const start = words[row + at.headStart] as number;
    const blob = this.#arena.subarray(start, start + (words[row + at.headLength] as number));
    const route = routeOf(words[row + at.route] as number);
    const head = upstreamHead(blob, route, pool.pathPrefix, pool.authorization);
    return { ...head, body: this.#bodyOf(row) };
  }

  promptBytes(slot: number): number {
    return this.#slots.words[this.#slots.row(slot) + this.#slots.at.promptBytes] as number;
  }

  /** Whether two bodies are the same but for their prompts. */
  areAlike(a: MergedMember, b: MergedMember): boolean {
    const [mine, theirs] = [a.request.body, b.request.body];
    const [at, other] = [this.#promptOf(a.slot), this.#promptOf(b.slot)];
    if (mine === null || theirs === null || at.start !== other.start) return false;
    const isSame = mine.subarray(0, at.start).equals(theirs.subarray(0, other.start));
    return isSame && mine.subarray(at.end).equals(theirs.subarray(other.end));
  }

  /** One request for all members, who are alike. */
  merged(members: readonly MergedMember[]): Dispatcher.DispatchOptions {
    const [first] = members;
    assert(first !== undefined, 'a batch has members');
    const body = first.request.body as Buffer;
    const { start, end } = this.#promptOf(first.slot);
    const parts: Uint8Array[] = [body.subarray(0, start)];
    for (const { slot, request } of members) {
      const prompt = this.#promptOf(slot);
      const whole = request.body as Buffer;
      parts.push(parts.length === 1 ? open : comma, whole.subarray(prompt.start, prompt.end));
    }
    parts.push(close, body.subarray(end));
    return { ...first.request, body: Buffer.concat(parts) };
  }

  #promptOf(slot: number): { readonly start: number; readonly end: number } {
    const { words, at } = this.#slots;
    const start = words[this.#slots.row(slot) + at.promptStart] as number;
    return { start, end: start + this.promptBytes(slot) };
  }

  /** A view of the arena: the body is never copied, and stays there until the slot is settled. */
  #bodyOf(row: number): Buffer | null {
    const { words, at } = this.#slots;
    const length = words[row + at.bodyLength] as number;
    if (length === 0) return null;
    const start = words[row + at.bodyStart] as number;
    return Buffer.from(this.#arena.buffer, this.#arena.byteOffset + start, length);
  }
}

const open = Buffer.from('[');
const comma = Buffer.from(',');
const close = Buffer.from(']');

/** What the heads of requests in one call must have in common; '' for one that goes alone. */
export function sharedHead({ method, path, headers }: UpstreamHead): string {
  let shared = `${method} ${path}`;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string;
    if (name === alone) return '';
    if (!ofOneRequest.has(name)) shared += `\n${name}: ${headers[i + 1]}`;
  }
  return shared;
}
