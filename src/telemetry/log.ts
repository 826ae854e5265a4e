/**
 * Logger: one a thread, JSON lines by pino into a bounded sink of the thread's own.
 *
 * Any thread but the scheduler while it serves: a line costs microseconds. It never throws and never
 * waits; lines the sink cannot take are dropped and told to `onDrop`, which counts them.
 * Invariant: only the fields of log-fields.ts are written.
 */
import { randomInt } from 'node:crypto';
import { type Level, pino } from 'pino';
import { AccessSampler, type AccessSamplerOptions } from './access-sampler.ts';
import { type LogFields, messageText, pickFields } from './log-fields.ts';
import { prettyLine } from './log-pretty.ts';
import { LogSink } from './log-sink.ts';

export type LogLevel = Level | 'silent';

export interface LoggerOptions {
  /** Name of the thread, on every line. */
  readonly thread: string;
  readonly level: LogLevel;
  /** Lines for people; for a terminal only. */
  readonly pretty: boolean;
  readonly access: Omit<AccessSamplerOptions, 'secret'>;
  readonly onDrop: (lines: number) => void;
  /** stdout when absent. */
  readonly fd?: number;
}

/** One finished request; what the access log knows of it. */
export interface AccessRecord extends LogFields {
  readonly req_id: string;
  readonly status: number;
  readonly e2e_ms: number;
  /** The answer failed though its status says otherwise, as a stream that broke. */
  readonly failed: boolean;
  /** Share of successes that is kept of its tenant; absent: that of everybody. */
  readonly sample?: number | undefined;
}

export interface Logger {
  level: LogLevel;
  readonly sampler: AccessSampler;
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  fatal(message: string, fields?: LogFields): void;
  /** Logs the request if the sampler keeps it: 5xx and failures as errors, 4xx as warnings. */
  access(record: AccessRecord): void;
  /** A line of the audit log: at any level but `silent`, with `audit: true`. */
  audit(fields: LogFields): void;
  flush(): Promise<void>;
  close(limitMs: number): Promise<void>;
}

/** Enough for the bursts of an incident, and small beside one request body. */
const bufferBytesMax = 1024 * 1024;
const flushMs = 500;

export function createLogger(options: LoggerOptions): Logger {
  const fd = options.fd ?? 1;
  const sink = new LogSink({ fd, bufferBytesMax, flushMs, onDrop: options.onDrop });
  const output = options.pretty
    ? { write: (line: string): void => sink.write(prettyLine(line)) }
    : sink;
  const log = pino(
    {
      level: options.level,
      base: { thread: options.thread },
      timestamp: () => `,"ts":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    output,
  );
  const sampler = new AccessSampler({ ...options.access, secret: randomInt(2 ** 31) });
  const emit = (level: Level, message: string, fields: LogFields | undefined): void => {
    if (!log.isLevelEnabled(level)) return;
    log[level](fields === undefined ? {} : pickFields(fields), messageText(message));
  };
  return {
    get level() {
      return log.level as LogLevel;
    },
    set level(level) {
      log.level = level;
    },
    sampler,
    debug: (message, fields) => emit('debug', message, fields),
    info: (message, fields) => emit('info', message, fields),
    warn: (message, fields) => emit('warn', message, fields),
    error: (message, fields) => emit('error', message, fields),
    fatal: (message, fields) => emit('fatal', message, fields),
    access(record) {
      const { req_id, status, failed, e2e_ms, sample } = record;
      if (sampler.keeps(req_id, status, failed, e2e_ms, sample))
        emit(accessLevel(record), 'request', record);
    },
    audit(fields) {
      if (log.level === 'silent') return;
      log.child({ audit: true }, { level: 'info' }).info(pickFields(fields), 'admin');
    },
    flush: () => sink.flush(),
    close: (limitMs) => sink.close(limitMs),
  };
}

function accessLevel(record: AccessRecord): Level {
  if (record.failed || record.status >= 500) return 'error';
  return record.status >= 400 ? 'warn' : 'info';
}
