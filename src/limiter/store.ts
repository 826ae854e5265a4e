/** What the limiter needs of a store of buckets. */
import type { BucketAnswer, BucketCall } from './script.ts';

export interface Store {
  /** Opens a connection where there is none. Rejects when that fails. */
  connect(): Promise<void>;
  /** One call for buckets of one tenant. Rejects when there is no answer in time. */
  take(calls: readonly BucketCall[]): Promise<BucketAnswer[]>;
  /** What is under way has failed; connect() begins anew. */
  close(): void;
}
