/**
 * What a server that stores usage events has to do for us: one file per kind. Ledger thread.
 *
 * The packages are loaded by `import()` when a sink is opened and not before.
 */
import { readFileSync } from 'node:fs';

export interface UsageRecord {
  /** The same however often it is sent. */
  readonly id: string;
  readonly tenant: string | null;
  /** The event as it is in the file, without its end of line. */
  readonly line: string;
}

export interface UsageSink {
  /**
   * Resolves once the server has said that all of them are stored, in this order. Rejects when that is not
   * known of one: all are sent again, over another connection.
   */
  send(records: readonly UsageRecord[]): Promise<void>;
  /** Never rejects. */
  close(): Promise<void>;
}

/** Each connection and each answer may take so long. */
export const sinkTimeoutMs = 5000;

interface TlsFiles {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}
interface Pems {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

/** Read at each connection, so that renewed certificates count. */
export function readPems({ ca, cert, key }: TlsFiles): Pems {
  const read = (file: string): string => readFileSync(file, 'utf8');
  return {
    ...(ca === undefined ? {} : { ca: read(ca) }),
    ...(cert === undefined ? {} : { cert: read(cert) }),
    ...(key === undefined ? {} : { key: read(key) }),
  };
}
