/** The store of shared limits in Redis. Limiter thread. */
import { RedisConnection, type RedisOptions } from '../redis/connection.ts';
import { type BucketAnswer, type BucketCall, bucketScript } from './script.ts';
import type { Store } from './store.ts';

export class RedisStore implements Store {
  readonly #redis: RedisConnection;

  constructor(options: RedisOptions) {
    this.#redis = new RedisConnection(options, bucketScript);
  }

  connect(): Promise<void> {
    return this.#redis.connect();
  }

  async take(calls: readonly BucketCall[]): Promise<BucketAnswer[]> {
    const keys = calls.map(({ key }) => key);
    const args = calls.flatMap(({ rate, burst, charge, refund, need, want }) =>
      [rate, burst, charge, refund, need, want].map(String),
    );
    const values = await this.#redis.run(keys, args, 2 * calls.length);
    return calls.map((_, i) => ({
      given: values[2 * i] as number,
      fullInUs: values[2 * i + 1] as number,
    }));
  }

  close(): void {
    this.#redis.close();
  }
}
