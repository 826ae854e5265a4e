/** What a gateway is given and what it gives back. Main thread; nothing here runs but a constructor. */
import type { LoadResult } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import type { ListenerAddresses } from './addresses.ts';

export interface GatewayOptions {
  readonly config: Config;
  /** A thread died or stalled beyond repair: the process should end with a failure. */
  readonly onFatal: (reason: string, error: unknown) => void;
  /** Reads the config file again; undefined where there is none. */
  readonly reload?: (() => Promise<LoadResult>) | undefined;
  /** Asks the supervisor for a restart that overlaps; undefined where there is none. */
  readonly restart?: (() => void) | undefined;
  /**
   * Addresses of another process that serves, and leaves them once this one does. What is not known of
   * them is taken to be what this one's are.
   */
  readonly takesOver?: Partial<ListenerAddresses> | undefined;
  /** Until it is `alone` another process renames the files that both write. */
  readonly sharesFiles?: boolean | undefined;
  /** It ends once its clients are served, for as long as `drain.timeout`; not called when it has none. */
  readonly onLeaving?: (() => void) | undefined;
}

export interface Addresses {
  readonly port: number;
  readonly adminPort: number;
}

/** What `listen` rejects with when the gateway was drained or closed before it served. */
export class ClosedWhileStarting extends Error {
  override name = 'ClosedWhileStarting';

  constructor() {
    super('the gateway was closed before it served');
  }
}
