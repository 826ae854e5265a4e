/**
 * The models and splits by which an acceptor goes. Acceptor threads; replaced as a whole by a reload.
 *
 * A request keeps the table that was there when its head was read, to its end: names, weights and prices
 * are those of one config, and the numbers of splits are those that its key was looked up with.
 */
import type { SplitRow } from '../config/model-names.ts';
import type { ModelRow } from '../shm/threads.ts';
import { ModelNames } from './model-names.ts';

export class ModelTable {
  readonly rows: readonly ModelRow[];
  readonly names: ModelNames;
  /** Hosts that media of a request may be on, by model; undefined: any. */
  readonly mediaDomains: readonly (ReadonlySet<string> | undefined)[];
  /** A model may serve that was not the one asked for: answers tell which did. */
  readonly tellsModel: boolean;

  constructor(rows: readonly ModelRow[], splits: readonly SplitRow[] = []) {
    this.rows = rows;
    this.names = new ModelNames(rows, splits);
    this.mediaDomains = rows.map(({ mediaDomains: hosts = ['*'] }) =>
      hosts.includes('*') ? undefined : new Set(hosts),
    );
    this.tellsModel = splits.length > 0 || rows.some(goesOn);
  }
}

const goesOn = ({ fallbacks, contextFallbacks, cascade }: ModelRow): boolean =>
  fallbacks !== undefined || contextFallbacks !== undefined || cascade !== undefined;
