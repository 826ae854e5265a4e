/** Clients that call one after the other until told to stop; every call they made is kept. */
import { type Call, type CallOptions, call } from './traffic.ts';

/** The options of a client's call; every second stream by default. */
export type CallOf = (client: number, turn: number) => Omit<CallOptions, 'nonce'>;

const everySecond: CallOf = (client, turn) => ({ stream: (client + turn) % 2 === 0 });

export class ClientLoad {
  readonly calls: Call[] = [];
  readonly #clients: Promise<void>[];
  #isOver = false;

  constructor(port: number, clients: number, name: string, callOf: CallOf = everySecond) {
    this.#clients = Array.from({ length: clients }, async (_, client) => {
      for (let turn = 0; !this.#isOver; turn++) {
        const nonce = `${name}-${client}-${turn}`;
        const c = call(port, { nonce, ...callOf(client, turn) });
        this.calls.push(c);
        await c.ended;
        if (c.status === 0) return; // the process is gone
      }
    });
  }

  /** Resolves when the calls under way have ended. */
  async stop(): Promise<readonly Call[]> {
    this.#isOver = true;
    await Promise.all(this.#clients);
    return this.calls;
  }
}

/** How many calls ended in each way. */
export function endsOf(calls: readonly Call[]): Record<string, number> {
  const ends: Record<string, number> = {};
  for (const { end } of calls) ends[end] = (ends[end] ?? 0) + 1;
  return ends;
}
