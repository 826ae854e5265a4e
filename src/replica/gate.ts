/**
 * The hold gate: requests with the tag `[[hold]]`, or all of them, are announced and kept until
 * released, so that a test never has to sleep. Bounded by the connections of the replica.
 */
import { assert } from '../lib/assert.ts';

export interface Holdable {
  /** Its x-request-id; '' without one. */
  readonly requestId: string;
  /** Called once, when the gate opens for it. */
  onRelease(): void;
}

interface Arrival {
  readonly count: number;
  readonly resolve: () => void;
}

export class HoldGate {
  /** Holds every request for tokens, tag or not. */
  holdAll: boolean;
  #held = new Set<Holdable>();
  #arrivals: Arrival[] = [];
  readonly #onChange: (held: number) => void;

  constructor(holdAll: boolean, onChange: (held: number) => void) {
    this.holdAll = holdAll;
    this.#onChange = onChange;
  }

  get held(): number {
    return this.#held.size;
  }

  hold(request: Holdable): void {
    this.#held.add(request);
    this.#onChange(this.#held.size);
    const arrived = this.#arrivals.filter(({ count }) => count <= this.#held.size);
    this.#arrivals = this.#arrivals.filter(({ count }) => count > this.#held.size);
    for (const { resolve } of arrived) resolve();
  }

  /** Forgets a request whose client is gone. */
  leave(request: Holdable): void {
    if (this.#held.delete(request)) this.#onChange(this.#held.size);
  }

  /** Resolves once `count` requests are held at the same time. */
  arrivals(count: number): Promise<void> {
    if (this.#held.size >= count) return Promise.resolve();
    return new Promise((resolve) => {
      this.#arrivals.push({ count, resolve });
    });
  }

  holds(requestId: string): boolean {
    return this.#heldOf(requestId) !== undefined;
  }

  /** Lets the oldest `count` held requests go on; all of them without one. */
  release(count = this.#held.size): void {
    this.#letGo([...this.#held].slice(0, count));
  }

  /** Lets the request of this id go on, which is held. */
  releaseOf(requestId: string): void {
    const held = this.#heldOf(requestId);
    assert(held !== undefined, 'who is released is held');
    this.#letGo([held]);
  }

  #letGo(going: readonly Holdable[]): void {
    for (const request of going) this.#held.delete(request);
    this.#onChange(this.#held.size);
    for (const request of going) request.onRelease();
  }

  #heldOf(requestId: string): Holdable | undefined {
    return [...this.#held].find((request) => request.requestId === requestId);
  }
}
