/** The region of the ledger as threads see it. */
import { tenantsMax } from '../config/capacities.ts';
import { sinkNames } from '../config/sinks.ts';
import { LedgerLayout } from './ledger.layout.ts';

export const ledgerCounts = { sink: sinkNames.length, tenant: tenantsMax } as const;

type Places = ReturnType<typeof LedgerLayout.place>['at'];

export class LedgerTable {
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;
  readonly #at: Places;

  constructor(region: SharedArrayBuffer) {
    this.#at = LedgerLayout.attach(region, ledgerCounts).at;
    this.#words = new Int32Array(region);
    this.#doubles = new Float64Array(region);
  }

  get isStoreUp(): boolean {
    return this.#words[this.#at.isStoreUp] === 1;
  }

  set isStoreUp(isUp: boolean) {
    this.#words[this.#at.isStoreUp] = isUp ? 1 : 0;
  }

  readSink(row: number, field: keyof Places['sink']['at']): number {
    return this.#doubles[this.#index('sink', row, this.#at.sink.at[field])]!;
  }

  writeSink(row: number, field: keyof Places['sink']['at'], value: number): void {
    this.#doubles[this.#index('sink', row, this.#at.sink.at[field])] = value;
  }

  readTenant(row: number, field: keyof Places['tenant']['at']): number {
    return this.#doubles[this.#index('tenant', row, this.#at.tenant.at[field])]!;
  }

  writeTenant(row: number, field: keyof Places['tenant']['at'], value: number): void {
    this.#doubles[this.#index('tenant', row, this.#at.tenant.at[field])] = value;
  }

  #index(of: 'sink' | 'tenant', row: number, field: number): number {
    const { base, stride } = this.#at[of];
    return (base + row * stride + field) >> 1;
  }
}
