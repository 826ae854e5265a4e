/**
 * Which replicas and keys are not as the config file has them, because somebody asked the admin listener for it.
 * Main thread. A process that takes over knows nothing of it: the one that leaves says what is lost.
 */
type Change = 'drained' | 'removed' | 'added' | 'made' | 'disabled' | 'enabled';

export class ByHand {
  readonly #changes = new Map<string, Change>();

  drained(name: string): void {
    if (this.#changes.get(name) !== 'added') this.#changes.set(name, 'drained');
  }

  undrained(name: string): void {
    if (this.#changes.get(name) === 'drained') this.#changes.delete(name);
  }

  removed(name: string): void {
    if (this.#changes.get(name) === 'added') this.#changes.delete(name);
    else this.#changes.set(name, 'removed');
  }

  added(name: string): void {
    this.#changes.set(name, 'added');
  }

  /** Of a key, by tenant and id. */
  key(tenant: string, id: string, change: 'made' | 'disabled' | 'enabled'): void {
    const name = `key ${tenant}/${id}`;
    if (change === 'enabled' && this.#changes.get(name) === 'disabled') this.#changes.delete(name);
    else this.#changes.set(name, change);
  }

  /** All is as the file has it again, but for what is drained or disabled. */
  reloaded(): void {
    for (const [name, change] of this.#changes) {
      if (change !== 'drained' && change !== 'disabled') this.#changes.delete(name);
    }
  }

  /** '' when all is as the file has it. */
  get text(): string {
    return [...this.#changes].map(([name, change]) => `${name} ${change}`).join(', ');
  }
}
