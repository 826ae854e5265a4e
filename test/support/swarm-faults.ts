/**
 * What a swarm does to a gateway: each fault begins at a moment of an epoch and is over at its end.
 * Every choice is drawn from the random numbers of the epoch before anything happens, so an epoch is
 * the same list of faults for the same seed, whatever the machine does meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { faultStages } from '../../src/lib/fault-point.ts';
import type { Prng } from '../../src/lib/prng.ts';
import { adminPost } from './admin-post.ts';
import { freePort } from './free-port.ts';
import type { GatewayProcess } from './gateway.ts';
import { type ReplicaProcess, replicaProcess } from './replica.ts';
import { model } from './scenario.ts';
import { faultToken, inject } from './thread-faults.ts';

/** A replica that can be another process at the same port. */
export class Standing {
  replica: ReplicaProcess;
  readonly #profile: string;

  private constructor(replica: ReplicaProcess, profile: string) {
    this.replica = replica;
    this.#profile = profile;
  }

  static async start(profile: string): Promise<Standing> {
    return new Standing(await replicaProcess({ profile, port: await freePort() }), profile);
  }

  async restart(): Promise<void> {
    await this.replica.close();
    this.replica = await replicaProcess({ profile: this.#profile, port: this.replica.port });
  }
}

export interface SwarmParts {
  readonly gateway: GatewayProcess;
  readonly replicas: readonly Standing[];
}

export interface SwarmFault {
  /** For people. */
  readonly text: string;
  /** From the start of the epoch. */
  readonly atMs: number;
  begin(parts: SwarmParts): Promise<void>;
  /** Makes good what `begin` has done. */
  end?(parts: SwarmParts): Promise<void>;
}

/** `which`: the replica it is about, if it is about one. */
type Draw = (random: Prng, which: number) => Omit<SwarmFault, 'atMs'>;

const pick = <T>(random: Prng, list: readonly T[]): T => list[random.below(list.length)] as T;

/** Faults of answers (docs/replica.md); all within the clocks of the swarm's gateway or over them. */
const answers = [
  'status=500',
  'status=503;retry-after=1',
  'status=429;retry-after=1',
  'status=401',
  'reset=headers',
  'fin=headers',
  'fin=body',
  'stall=headers',
  'stall=body',
  'fin-after=4',
  'fin-after=3;mid-event',
  'reset-after=5',
  'reset-after=2;mid-event',
  'stall-after=6',
  'truncate-chunk=5',
  'garbage=4',
  'error-event=3',
  'ok-error',
  'refuse-continuation',
  'drip-raw=2',
  'split=37',
  'slow=5',
  'delay=300',
  'framing=close;fin-after=4',
];

const answerFault: Draw = (random, which) => {
  const fault = pick(random, answers);
  const rule = { fault, every: 1 + random.below(6), seed: random.next() };
  return {
    text: `replica ${which}: ${fault}, every ${rule.every}`,
    begin: ({ replicas }) => replicas[which]!.replica.setFaults([rule]),
    end: ({ replicas }) => replicas[which]!.replica.setFaults([]),
  };
};

const kill: Draw = (_, which) => ({
  text: `replica ${which}: SIGKILL`,
  begin: async ({ replicas }) => replicas[which]!.replica.kill(),
  end: ({ replicas }) => replicas[which]!.restart(),
});

const freeze: Draw = (_, which) => ({
  text: `replica ${which}: SIGSTOP`,
  begin: async ({ replicas }) => replicas[which]!.replica.stop(),
  end: async ({ replicas }) => replicas[which]!.replica.cont(),
});

const closedPort: Draw = (_, which) => ({
  text: `replica ${which}: its port is closed`,
  begin: ({ replicas }) => replicas[which]!.replica.listen(false),
  end: ({ replicas }) => replicas[which]!.replica.listen(true),
});

const crashed: Draw = (random) => {
  const kind = pick(random, ['scheduler', 'forwarder'] as const);
  const thread = kind === 'forwarder' ? `forwarder-${random.below(2)}` : kind;
  const stage = pick(random, faultStages[kind]);
  const how = pick(random, ['throw', 'exit', 'oom', 'terminate'] as const);
  const after = random.below(20);
  return {
    text: `${thread}: ${how} at ${stage}, after ${after}`,
    begin: ({ gateway }) => inject(gateway, { kind: 'crash', thread, stage, how, after }),
  };
};

const threads = ['scheduler', 'forwarder-0', 'forwarder-1', 'acceptor-0', 'main'] as const;

const stalled: Draw = (random) => {
  const kind = pick(random, ['stall', 'cpuHog'] as const);
  const thread = pick(random, threads);
  const ms = 20 + random.below(400);
  return {
    text: `${thread}: ${kind} for ${ms} ms`,
    begin: ({ gateway }) => inject(gateway, { kind, thread, ms }),
  };
};

const lostWakeups: Draw = (random) => {
  const thread = pick(random, threads);
  const every = 2 + random.below(10);
  return {
    text: `${thread}: every ${every}th wake-up is lost`,
    begin: ({ gateway }) => inject(gateway, { kind: 'loseWakeup', thread, every }),
    end: ({ gateway }) => inject(gateway, { kind: 'loseWakeup', thread, every: 0 }),
  };
};

const skewed: Draw = (random) => {
  const thread = pick(random, threads);
  const ms = random.below(3_660_000) - 3_600_000;
  return {
    text: `${thread}: the wall clock is ${ms} ms off`,
    begin: ({ gateway }) => inject(gateway, { kind: 'clockSkew', thread, ms }),
    end: ({ gateway }) => inject(gateway, { kind: 'clockSkew', thread, ms: 0 }),
  };
};

const fullRing: Draw = (random) => {
  const [ring, thread] = pick(random, [
    ['request', 'acceptor-0'],
    ['dispatch', 'scheduler'],
    ['reply', 'scheduler'],
    ['response', 'forwarder-0'],
    ['response', 'forwarder-1'],
  ] as const);
  const ms = 20 + random.below(500);
  return {
    text: `${thread}: the ${ring} ring is full for ${ms} ms`,
    begin: ({ gateway }) => inject(gateway, { kind: 'ringFull', thread, ring, ms }),
  };
};

async function change(gateway: GatewayProcess, page: string, body?: object): Promise<void> {
  const answer = await adminPost(gateway.adminUrl, faultToken, page, body);
  if (answer.status >= 400) throw new Error(`${page}: ${JSON.stringify(answer.body)}`);
}

const drained: Draw = (_, which) => {
  const name = `r${which + 1}`;
  return {
    text: `${name}: drained and taken back`,
    begin: ({ gateway }) => change(gateway, `replicas/${name}/drain`),
    end: ({ gateway }) => change(gateway, `replicas/${name}/undrain`),
  };
};

const replaced: Draw = (_, which) => {
  const name = `r${which + 1}`;
  return {
    text: `${name}: removed and added`,
    begin: ({ gateway }) => change(gateway, `replicas/${name}/remove`),
    end: ({ gateway, replicas }) =>
      change(gateway, 'replicas', { model, name, url: replicas[which]!.replica.url }),
  };
};

/**
 * At most one of each in an epoch, and each of a row has a replica of its own: two could undo each
 * other at its end.
 */
const ofReplicas: readonly Draw[] = [answerFault, kill, freeze, closedPort];
const ofMembers: readonly Draw[] = [drained, replaced];
const ofThreads: readonly Draw[] = [crashed, stalled, lostWakeups, skewed, fullRing];

function shuffled(random: Prng): number[] {
  const order = [0, 1, 2, 3];
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  return order;
}

/**
 * A random subset of all kinds, each at a random moment of the first two thirds. Threads die in every
 * second epoch only: six deaths in a minute end the process, as they should.
 */
export function drawFaults(random: Prng, epochMs: number, epoch: number): SwarmFault[] {
  const faults: SwarmFault[] = [];
  for (const kinds of [ofReplicas, ofMembers, ofThreads]) {
    const order = shuffled(random);
    for (const [i, draw] of kinds.entries()) {
      const isIn = random.below(3) === 0 && (draw !== crashed || epoch % 2 === 0);
      const atMs = random.below(Math.floor((2 * epochMs) / 3));
      const fault = draw(random, order[i % order.length] as number);
      if (isIn) faults.push({ ...fault, atMs });
    }
  }
  return faults.sort((a, b) => a.atMs - b.atMs);
}

/** Begins every fault at its time, and makes all of them good when the epoch is over. */
export async function strike(
  faults: readonly SwarmFault[],
  epochMs: number,
  parts: SwarmParts,
): Promise<void> {
  const startMs = performance.now();
  const until = (atMs: number): Promise<void> => sleep(startMs + atMs - performance.now());
  for (const fault of faults) {
    await until(fault.atMs);
    await fault.begin(parts);
  }
  await until(epochMs);
  for (const fault of faults) await fault.end?.(parts);
}
