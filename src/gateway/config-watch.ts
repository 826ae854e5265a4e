/**
 * Config watch: tells when the config file is another one than before. Runs on the main thread.
 *
 * It looks at the file that the path leads to, once a second: notifications of the kernel follow an inode
 * and miss what replaces it, as an editor that renames or a Kubernetes ConfigMap, which swaps a symbolic
 * link above the file. A file that is still changing is left until two looks agree. One that is gone for
 * the moment is no change.
 */
import { stat } from 'node:fs/promises';

const periodMs = 1000;

export class ConfigWatch {
  readonly #path: string;
  #onChange: () => void = () => {};
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  /** What was told last, and what was seen last; '' before the first look. */
  #told = '';
  #seen = '';

  constructor(path: string) {
    this.#path = path;
  }

  /** The file as it is now is the one that will be in use; call it before the file is read. */
  async mark(): Promise<void> {
    this.#told = this.#seen = await this.#identity();
  }

  /** Looks from now on, and calls `onChange` for every change since mark(). */
  follow(onChange: () => void): void {
    this.#onChange = onChange;
    this.#schedule();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** Looks once. */
  async look(): Promise<void> {
    const identity = await this.#identity();
    const isStable = identity === this.#seen;
    this.#seen = identity;
    if (this.#stopped || identity === '' || !isStable || identity === this.#told) return;
    this.#told = identity;
    this.#onChange();
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.look().then(() => this.#schedule()), periodMs);
    this.#timer.unref();
  }

  async #identity(): Promise<string> {
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = await stat(this.#path, { bigint: true });
      return `${dev} ${ino} ${size} ${mtimeNs} ${ctimeNs}`;
    } catch {
      return '';
    }
  }
}
