/**
 * Which replicas are not as the config file has them, because somebody asked the admin listener for it.
 * Main thread. A process that takes over knows nothing of it: the one that leaves says what is lost.
 */
type Change = 'drained' | 'removed' | 'added';

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

  /** The running replicas are those of the file again; one that is drained stays so. */
  reloaded(): void {
    for (const [name, change] of this.#changes) {
      if (change !== 'drained') this.#changes.delete(name);
    }
  }

  /** '' when all is as the file has it. */
  get text(): string {
    return [...this.#changes].map(([name, change]) => `${name} ${change}`).join(', ');
  }
}
