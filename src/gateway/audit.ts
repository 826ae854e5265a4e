/**
 * The audit log: one line for each change that somebody asked the admin listener for, made or refused. Main thread.
 *
 * Lines go to `admin.audit_log`, a file of its own, else to the log, whatever its level. A line has names that the
 * config allows and numbers, nothing else of what was sent: no token, no key, no body. Who may not change anything
 * can ask as often as they like, so of what is refused for that a bound is written each second, with the
 * count of what was left out before it.
 */
import { nowMs } from '../lib/clock.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { metrics } from '../telemetry/catalogue.ts';
import type { Logger } from '../telemetry/log.ts';
import { UsageFile } from '../telemetry/usage-file.ts';

interface Change {
  readonly action: string;
  /** What it is about; '' where the body says it, or nothing. */
  readonly target: string;
}

interface AuditEntry extends Change {
  /** Whoever has sent the token is `admin`; `nobody` has not. */
  readonly who: 'admin' | 'nobody';
  readonly remote: string;
  readonly status: number;
  /** Time it took. */
  readonly ms: number;
}

const refusedPerSecond = 10;
const fileLimits = { maxBytes: 64 * 1024 * 1024, keep: 10, bufferBytesMax: 1024 * 1024 };

const name = '([A-Za-z0-9._-]{1,64})';
const ofReplica = new RegExp(`^/admin/replicas/${name}/(drain|undrain|remove)$`);
const ofKey = new RegExp(`^/admin/tenants/${name}/keys(?:/${name}/(disable|enable))?$`);
const others: Readonly<Record<string, string>> = {
  '/admin/reload': 'reload',
  '/admin/restart': 'restart',
  '/admin/fault': 'fault',
  '/admin/replicas': 'replica.add',
};

/** What a POST to the path is; undefined: nothing that there is. */
export function changeOf(path: string): Change | undefined {
  const other = Object.hasOwn(others, path) ? others[path] : undefined;
  if (other !== undefined) return { action: other, target: '' };
  const replica = ofReplica.exec(path);
  if (replica !== null) return { action: `replica.${replica[2]}`, target: `${replica[1]}` };
  const key = ofKey.exec(path);
  if (key === null) return undefined;
  const [, tenant, id, what] = key;
  return id === undefined
    ? { action: 'key.create', target: `${tenant}` }
    : { action: `key.${what}`, target: `${tenant}/${id}` };
}

export class AuditLog {
  readonly #logger: Pick<Logger, 'audit'>;
  readonly #file: UsageFile | undefined;
  #secondMs = 0;
  #refused = 0;
  #skipped = 0;

  constructor(
    path: string,
    logger: Pick<Logger, 'audit' | 'error'>,
    writer: MetricsWriter,
    mayRename: () => boolean,
  ) {
    this.#logger = logger;
    if (path === '') return;
    this.#file = new UsageFile({
      ...{ path, mayRename, ...fileLimits },
      onDrop: (lines) => writer.add(metrics.logDropped, 0, lines),
      onFailure: (error) => {
        if (error !== undefined) logger.error('the audit log cannot be written', { err: error });
      },
      onRenameFailure: (error) => {
        if (error === undefined) return;
        logger.error('the audit log grows past its size: it cannot be renamed', { err: error });
      },
    });
  }

  write({ who, remote, action, target, status, ms }: AuditEntry): void {
    if (who === 'nobody' && !this.#mayTell()) return;
    const result = status < 400 ? 'ok' : 'refused';
    const entry = { who, remote, action, target, result, status };
    const skipped = this.#skipped;
    this.#skipped = 0;
    if (this.#file === undefined) {
      const count = skipped > 0 ? skipped : undefined;
      this.#logger.audit({ ...entry, e2e_ms: ms, count });
      return;
    }
    const time = new Date().toISOString();
    const line = { audit: true, time, ...entry, ms: Math.round(ms) };
    this.#file.add(`${JSON.stringify(skipped > 0 ? { ...line, skipped } : line)}\n`);
  }

  async close(limitMs: number): Promise<void> {
    await this.#file?.close(limitMs);
  }

  #mayTell(): boolean {
    const ms = nowMs();
    if (ms - this.#secondMs >= 1000) {
      this.#secondMs = ms;
      this.#refused = 0;
    }
    this.#refused++;
    if (this.#refused <= refusedPerSecond) return true;
    this.#skipped++;
    return false;
  }
}
