/**
 * A gateway in a process of its own, as an operator runs it: `sluice serve` of the built program, from
 * a config file.
 *
 * `withGateway` is the way to use it: whatever the test does, its process is gone afterwards, and if it
 * still serves after the test, the invariants of every gateway must hold (invariants.ts). A gateway
 * without a supervisor also ends by itself when the process of the test dies.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect } from 'vitest';
import { mainFile } from '../../scripts/bench/program.ts';
import type { ConfigInput } from '../../src/config/schema.ts';
import type { ClusterView, SlotsView } from './admin-pages.ts';
import { type DescriptorsOf, descriptorsOf } from './descriptors-of.ts';
import { currentTest, invariantsHeld } from './figures.ts';
import { expectInvariants, invariantsOfEvery } from './invariants.ts';
import { killIfAlive } from './pids.ts';
import { type Family, parsePrometheusText } from './prometheus-text.ts';

export { expectQuiet } from './quiet.ts';

const OUTPUT_MAX = 4 * 1024 * 1024;

export const testEngines = ['uws', 'node'] as const;
export type TestEngine = (typeof testEngines)[number];

export interface GatewayOptions {
  /** Added to the defaults of a test: loopback, free ports, 1,000 connections, warnings only. */
  readonly config?: ConfigInput;
  /** The file as it is, in place of `config`. */
  readonly configText?: string;
  /** Flags of `sluice serve` in place of a file, as `--replica URL --model NAME`. */
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly supervisor?: boolean;
  /** Flags of node, before the program. */
  readonly nodeFlags?: readonly string[];
  /** A command that runs the gateway's, as `prlimit --nofile=256`. */
  readonly wrapper?: readonly string[];
  /** Why it is not at rest when the test is over; its invariants are not asked for then. */
  readonly unquiet?: string;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface GatewayProcess {
  /** Addresses of the last start. */
  readonly url: string;
  readonly port: number;
  readonly adminUrl: string;
  readonly engine: string;
  /** The process that was started: the supervisor when there is one. */
  readonly pid: number;
  /** The process that serves; the older one while another takes over. */
  readonly servingPid: number;
  /** The gateway processes of the supervisor, oldest first. */
  readonly servingPids: readonly number[];
  /** Path of the config file; '' with flags. */
  readonly configFile: string;
  readonly exited: Promise<Exit>;
  /** Everything written to stdout and stderr, up to a bound. */
  output(): string;
  /** Resolves once the output holds the text; rejects when the process ends before. */
  said(text: string): Promise<void>;
  /** Resolves once the gateway has been ready that many times; rejects when it never will. */
  starts(count: number): Promise<void>;
  writeConfig(config: ConfigInput | string): void;
  kill(signal: NodeJS.Signals): void;
  /**
   * The invariants of every gateway (invariants.ts) hold of this one, if it serves, is the process it was
   * at the start and need not be quiet for a reason.
   */
  settle(): Promise<void>;
  /** Settles, then SIGTERM; resolves when the process is gone. */
  stop(): Promise<Exit>;
  /** Ends the process if it lives and removes its files. */
  close(): Promise<void>;
  /** For the end of a file: settles, and closes whatever comes of it. */
  finish(): Promise<void>;
  ready(): Promise<{ status: number; ready: boolean; reason: string }>;
  cluster(): Promise<ClusterView>;
  slots(): Promise<SlotsView>;
  /** Every family of /metrics by name. */
  metrics(): Promise<Map<string, Family>>;
}

/** The gateway ended before it was ready. */
export class GatewayStartError extends Error {
  override name = 'GatewayStartError';
  readonly exit: Exit;
  readonly output: string;

  constructor(exit: Exit, output: string) {
    super(`the gateway ended before it was ready (${exit.signal ?? exit.code}): ${output}`);
    this.exit = exit;
    this.output = output;
  }
}

/** Starts a gateway; resolves when it serves, rejects with a GatewayStartError when it will not. */
export async function gatewayProcess(options: GatewayOptions): Promise<GatewayProcess> {
  const gateway = new RunningGateway(options);
  try {
    await gateway.starts(1);
    return gateway;
  } catch (error) {
    await gateway.close();
    throw error;
  }
}

/** Runs `use` with a gateway that is gone afterwards, whatever happens. */
export function withGateway<T>(
  options: GatewayOptions,
  use: (gateway: GatewayProcess) => Promise<T>,
): Promise<T> {
  return withStartingGateway(options, async (gateway) => {
    await gateway.starts(1);
    const result = await use(gateway);
    await gateway.settle();
    return result;
  });
}

/** The same with a gateway that has just been started and may not serve yet. */
export async function withStartingGateway<T>(
  options: GatewayOptions,
  use: (gateway: GatewayProcess) => Promise<T>,
): Promise<T> {
  const gateway = new RunningGateway(options);
  try {
    return await use(gateway);
  } catch (error) {
    const said = gateway.output().slice(-4000);
    if (error instanceof Error && said !== '') error.message += `\n--- gateway output\n${said}`;
    throw error;
  } finally {
    await gateway.close();
  }
}

interface ReadyLine {
  readonly ready: true;
  readonly url: string;
  readonly admin: string;
  readonly engine: string;
}

class RunningGateway implements GatewayProcess {
  readonly configFile: string;
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #supervised: boolean;
  readonly #isQuiet: boolean;
  readonly #test = currentTest();
  #before: { readonly pid: number; readonly descriptors: DescriptorsOf } | undefined;
  #output = '';
  #isOver = false;
  #starts: ReadyLine[] = [];
  #waiters: { done: () => boolean; resolve: () => void }[] = [];

  constructor(options: GatewayOptions) {
    this.#folder = mkdtempSync(join(tmpdir(), 'sluice-test-'));
    this.#supervised = options.supervisor === true;
    this.#isQuiet = options.unquiet === undefined;
    this.configFile = options.flags === undefined ? join(this.#folder, 'sluice.yaml') : '';
    if (this.configFile !== '') this.writeConfig(options.configText ?? options.config ?? '');
    this.#child = this.#start(options);
    this.exited = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      // `close` comes after the last byte of output, `exit` may come before it.
      this.#child.once('close', (code, signal) => {
        this.#isOver = true;
        resolve({ code, signal });
        this.#wake();
      });
    });
  }

  get url(): string {
    return this.#last.url;
  }

  get port(): number {
    return Number(new URL(this.#last.url).port);
  }

  get adminUrl(): string {
    return this.#last.admin;
  }

  get engine(): string {
    return this.#last.engine;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get servingPid(): number {
    return this.servingPids[0] ?? 0;
  }

  get servingPids(): readonly number[] {
    if (!this.#supervised) return [this.pid];
    const children = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8').trim();
    return children === '' ? [] : children.split(' ').map(Number);
  }

  output(): string {
    return this.#output;
  }

  async said(text: string): Promise<void> {
    await this.#until(() => this.#output.includes(text));
    expect(this.#output).toContain(text);
  }

  async starts(count: number): Promise<void> {
    await this.#until(() => this.#starts.length >= count);
    if (this.#starts.length >= count) {
      const pid = this.servingPid;
      if (!this.#isOver) this.#before ??= { pid, descriptors: descriptorsOf(pid) };
      return;
    }
    throw new GatewayStartError(await this.exited, this.#output);
  }

  writeConfig(config: ConfigInput | string): void {
    const text = typeof config === 'string' ? config : JSON.stringify(completed(config), null, 2);
    writeFileSync(this.configFile, text);
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async settle(): Promise<void> {
    const before = this.#before;
    if (!this.#isQuiet || this.#isOver || before?.pid !== this.servingPid) return;
    await expectInvariants(this, before.descriptors);
    invariantsHeld(this.#test, invariantsOfEvery);
  }

  async stop(): Promise<Exit> {
    await this.settle();
    this.kill('SIGTERM');
    return this.exited;
  }

  async finish(): Promise<void> {
    try {
      await this.settle();
    } finally {
      await this.close();
    }
  }

  async close(): Promise<void> {
    if (!this.#isOver) {
      // A killed supervisor leaves a gateway that would drain for as long as its streams last.
      const serving = this.#supervised ? this.servingPids : [];
      this.kill('SIGKILL');
      for (const pid of serving) killIfAlive(pid);
    }
    await this.exited;
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async ready(): Promise<{ status: number; ready: boolean; reason: string }> {
    const response = await fetch(`${this.adminUrl}/readyz`);
    const body = (await response.json()) as { ready: boolean; reason: string };
    return { status: response.status, ...body };
  }

  cluster(): Promise<ClusterView> {
    return this.#page('/v1/cluster') as Promise<ClusterView>;
  }

  slots(): Promise<SlotsView> {
    return this.#page('/admin/slots') as Promise<SlotsView>;
  }

  async metrics(): Promise<Map<string, Family>> {
    const response = await fetch(`${this.adminUrl}/metrics`);
    return parsePrometheusText(await response.text());
  }

  async #page(path: string): Promise<unknown> {
    const response = await fetch(this.adminUrl + path);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  get #last(): ReadyLine {
    const last = this.#starts.at(-1);
    if (last === undefined) throw new Error('the gateway has not been ready yet');
    return last;
  }

  #start(options: GatewayOptions): ChildProcess {
    const where = this.configFile === '' ? (options.flags ?? []) : ['--config', this.configFile];
    const ports = this.configFile === '' ? ['--port', '0', '--admin-port', '0'] : [];
    const command = [
      ...(options.wrapper ?? []),
      process.execPath,
      ...(options.nodeFlags ?? []),
      ...[mainFile, 'serve', '--json', ...where, ...ports],
      ...(this.#supervised ? [] : ['--no-supervisor']),
    ];
    const child = spawn(command[0]!, command.slice(1), {
      // Over the channel a gateway notices that the process of the test is gone.
      stdio: ['ignore', 'pipe', 'pipe', this.#supervised ? 'ignore' : 'ipc'],
      env: { ...process.env, ...options.env },
    });
    if (child.stdout === null || child.stderr === null) throw new Error('no pipes');
    createInterface({ input: child.stdout }).on('line', (line) => this.#onLine(line));
    createInterface({ input: child.stderr }).on('line', (line) => this.#keep(line));
    return child;
  }

  #onLine(line: string): void {
    if (line.startsWith('{"ready":true')) this.#starts.push(JSON.parse(line) as ReadyLine);
    this.#keep(line);
  }

  #keep(line: string): void {
    if (this.#output.length < OUTPUT_MAX) this.#output += `${line}\n`;
    this.#wake();
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      if (this.#isOver || waiter.done()) waiter.resolve();
      else this.#waiters.push(waiter);
    }
  }

  async #until(done: () => boolean): Promise<void> {
    if (done() || this.#isOver) return;
    await new Promise<void>((resolve) => {
      this.#waiters.push({ done, resolve });
    });
  }
}

function completed(config: ConfigInput): ConfigInput {
  return {
    ...config,
    listen: { host: '127.0.0.1', port: 0, max_connections: 1000, ...config.listen },
    admin: { port: 0, ...config.admin },
    log: { level: 'warn', ...config.log },
  };
}
