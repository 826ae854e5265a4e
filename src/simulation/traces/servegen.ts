/**
 * Reader of ServeGen client profiles: who sends how much, how burstily, of what length. Pure.
 *
 * Arrivals of a client are renewals of its family and published shape, scaled to its published rate
 * (the second published argument is not in seconds, the rate is). Lengths come from the client's own
 * quantiles. Clients published without lengths use those of the client next to them in rate.
 */
import { assert } from '../../lib/assert.ts';
import { createPrng } from '../../lib/prng.ts';
import { drawGap, drawQuantile, type GapShape } from '../variates.ts';
import { type Arrival, packWorkload, type Workload } from '../workload.ts';
import { FreshBlocks } from './fresh-blocks.ts';

interface Client {
  readonly id: string;
  readonly ratePerSecond: number;
  readonly gaps: GapShape;
}

interface Quantiles {
  readonly q: readonly number[];
}

interface ClientLengths {
  readonly input_tokens: Quantiles;
  readonly output_tokens: Quantiles;
}

interface LengthsFile {
  readonly quantile_levels: readonly number[];
  readonly clients: Readonly<Record<string, Readonly<Record<string, ClientLengths>>>>;
}

export interface ServeGenPlan {
  /** Start of one published 10-minute window, in seconds of the day. */
  readonly windowS: number;
  readonly seconds: number;
  /** Divides every rate of the published service, of some 900 requests/s. */
  readonly rateFactor: number;
  readonly seed: number;
}

export function readServeGen(
  clientsCsv: string,
  lengthsJson: string,
  plan: ServeGenPlan,
): Workload {
  const clients = readClients(clientsCsv, plan.windowS);
  const lengths = JSON.parse(lengthsJson) as LengthsFile;
  const fresh = new FreshBlocks();
  const arrivals = clients.flatMap((client, tenant) => {
    const own = lengthsOf(lengths, clients, tenant, plan.windowS);
    return arrivalsOf(client, tenant, own, lengths.quantile_levels, fresh, plan);
  });
  return packWorkload(arrivals, { ...fresh.shape(), tenantCount: clients.length });
}

/** Clients that are active in the window, the busiest first. */
function readClients(text: string, windowS: number): Client[] {
  const clients: Client[] = [];
  for (const row of text.split('\n').slice(1).filter(Boolean)) {
    const [id = '', startS, rate, , family, shape] = row.split(',');
    if (Number(startS) !== windowS) continue;
    assert(family === 'Gamma' || family === 'Weibull', `family of client ${id} is known`);
    clients.push({ id, ratePerSecond: Number(rate), gaps: { family, shape: Number(shape) } });
  }
  assert(clients.length > 0, `some client is active at ${windowS} s`);
  return clients.sort((a, b) => b.ratePerSecond - a.ratePerSecond || a.id.localeCompare(b.id));
}

function lengthsOf(
  { clients: tables }: LengthsFile,
  clients: readonly Client[],
  tenant: number,
  windowS: number,
): ClientLengths {
  for (let distance = 0; distance < clients.length; distance++) {
    for (const neighbour of [tenant + distance, tenant - distance]) {
      const windows = tables[clients[neighbour]?.id ?? ''];
      if (windows === undefined) continue;
      const starts = Object.keys(windows).map(Number);
      const start = starts.findLast((second) => second <= windowS) ?? starts[0];
      const found = windows[String(start)];
      if (found !== undefined) return found;
    }
  }
  throw new Error('no active client has published lengths');
}

function arrivalsOf(
  client: Client,
  tenant: number,
  lengths: ClientLengths,
  levels: readonly number[],
  fresh: FreshBlocks,
  plan: ServeGenPlan,
): Arrival[] {
  // A generator for each client, so that one client's draws do not move another's.
  const random = createPrng(plan.seed * 1009 + tenant);
  const gapUs = (1e6 * plan.rateFactor) / client.ratePerSecond;
  const draw = ({ q }: Quantiles) => Math.max(1, Math.round(drawQuantile(random, levels, q)));
  const arrivals: Arrival[] = [];
  let us = drawGap(random, client.gaps) * gapUs;
  while (us < plan.seconds * 1e6) {
    const promptTokens = draw(lengths.input_tokens);
    const outputTokens = draw(lengths.output_tokens);
    const blocks = fresh.of(promptTokens);
    arrivals.push({ arrivalUs: us, promptTokens, outputTokens, tenant, blocks });
    us += drawGap(random, client.gaps) * gapUs;
  }
  return arrivals;
}
