/**
 * The control routes of a simulated replica: statistics, ledger, gate and faults at run time.
 *
 * They answer on the replica's port and on its control port, which stays open while the replica
 * refuses connections. Runs on the replica's event loop.
 */
import { type Answer, jsonAnswer } from './answer.ts';
import type { FaultRules } from './fault-rules.ts';
import { FAULT_NAMES } from './faults.ts';
import type { HoldGate } from './gate.ts';
import { type Body, record } from './generation.ts';
import { SSE_VARIANTS } from './sse-variants.ts';
import type { ReplicaStats } from './stats.ts';

export interface ControlTarget {
  readonly stats: ReplicaStats;
  readonly gate: HoldGate;
  readonly rules: FaultRules;
  /** Opens or closes the replica's port; closing also ends idle connections. */
  listen(open: boolean): Promise<void>;
  /** Makes every step of the engine so many times as long; false when there is no engine. */
  setSlowness(factor: number): boolean;
}

const SSE_NAMES = Object.keys(SSE_VARIANTS);
const LEDGER_LIMIT = 1000;
const SLOWNESS_MAX = 1000;
const CONTROL_KEYS = new Set(['faults', 'hold', 'release', 'listen', 'slowness']);

type ControlRoute = (target: ControlTarget, url: URL, body: Buffer) => Promise<Answer>;

const ROUTES: ReadonlyMap<string, ControlRoute> = new Map<string, ControlRoute>([
  ['GET /stats', async (target, url) => statsAnswer(target, url)],
  ['GET /ledger', async (target, url) => ledgerAnswer(target, url)],
  ['GET /faults', async () => jsonAnswer(200, { faults: FAULT_NAMES, sse: SSE_NAMES })],
  ['GET /gate', arrivals],
  ['POST /control', control],
]);

/** The handler of a control request; undefined when it is none. */
export function controlRoute(method: string, path: string): ControlRoute | undefined {
  return ROUTES.get(`${method} ${path}`);
}

function ledgerAnswer({ stats }: ControlTarget, url: URL): Answer {
  const id = url.searchParams.get('id') ?? undefined;
  const limit = Number(url.searchParams.get('limit') ?? LEDGER_LIMIT);
  return jsonAnswer(200, { attempts: stats.ledger(id, limit) });
}

function statsAnswer({ stats }: ControlTarget, url: URL): Answer {
  const id = url.searchParams.get('id');
  if (id !== null) return jsonAnswer(200, { id, count: stats.countOf(id) });
  const all = url.searchParams.has('ids') ? { counts: stats.ids() } : {};
  return jsonAnswer(200, { ...stats.snapshot(), ...all });
}

async function arrivals({ gate }: ControlTarget, url: URL): Promise<Answer> {
  await gate.arrivals(Number(url.searchParams.get('arrivals') ?? 0));
  return jsonAnswer(200, { held: gate.held });
}

async function control(target: ControlTarget, _url: URL, bytes: Buffer): Promise<Answer> {
  const body = parse(bytes);
  if (body === undefined) return refused('the body must be a JSON object');
  for (const key of Object.keys(body)) {
    if (!CONTROL_KEYS.has(key)) return refused(`unknown key ${key}`);
  }
  if (body.faults !== undefined) {
    if (!Array.isArray(body.faults)) return refused('faults must be a list of rules');
    const problem = target.rules.replace(body.faults);
    if (problem !== undefined) return refused(problem);
  }
  if (body.slowness !== undefined) {
    const factor = body.slowness;
    const valid = typeof factor === 'number' && factor > 0 && factor <= SLOWNESS_MAX;
    if (!valid) return refused(`slowness must be above 0 and at most ${SLOWNESS_MAX}`);
    if (!target.setSlowness(factor)) return refused('slowness needs a profile engine:…');
  }
  if (typeof body.hold === 'boolean') target.gate.holdAll = body.hold;
  if (typeof body.listen === 'boolean') await target.listen(body.listen);
  if (typeof body.release === 'number') target.gate.release(body.release);
  if (body.release === true) target.gate.release();
  return jsonAnswer(200, { ok: true });
}

function refused(message: string): Answer {
  return jsonAnswer(400, { error: { message, type: 'invalid_request_error' } });
}

function parse(bytes: Buffer): Body | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString());
    return typeof value === 'object' && value !== null ? record(value) : undefined;
  } catch {
    return undefined;
  }
}
