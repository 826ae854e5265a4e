/**
 * Rules over more than one key, each with its reason.
 *
 * Pure; runs at load and reload. A rule runs when the sections it reads are valid by themselves, even
 * if others are not; what it would say of a broken section is said once that is mended.
 */
import type { z } from 'zod';
import { blockOrder } from '../lib/block-size.ts';
import { formatDuration, formatSize } from '../lib/quantity.ts';
import { adaptersOf } from './adapters.ts';
import { isLoopbackHost } from './address.ts';
import { adaptersMax, headBlobBytesMax, limitRowsMax, replicasMax } from './capacities.ts';
import { hasBudget, isCounted, type Rule, type RuleInput, uniqueNames } from './rule.ts';
import { nameRules } from './rules-names.ts';
import { sinkNames } from './sinks.ts';

/** Adds every rule to the schema; each is skipped while a section it reads is broken. */
export function applyRules<S extends z.ZodType<RuleInput>>(schema: S): S {
  return rules.reduce(
    (checked, rule) =>
      checked.superRefine(
        (config, context) =>
          rule.check(config, (path, message) => {
            context.addIssue({
              code: 'custom',
              path: [...path],
              message,
              params: { rule: rule.name },
            });
          }),
        {
          when: ({ value, issues }) =>
            typeof value === 'object' &&
            value !== null &&
            rule.reads.every(
              (section) =>
                (value as Partial<RuleInput>)[section] !== undefined &&
                !issues.some((issue) => issue.path?.[0] === section),
            ),
        },
      ),
    schema,
  );
}

export const rules: readonly Rule[] = [
  ...nameRules,
  {
    // Request rings are sized from slots, sets of responses found in their table: both wrap by a mask.
    name: 'powers_of_two',
    reads: ['memory'],
    check({ memory }, report) {
      for (const key of ['slots', 'responses'] as const) {
        const value = memory[key];
        if ((value & (value - 1)) !== 0) report(['memory', key], 'must be a power of two');
      }
    },
  },
  {
    // Each acceptor claims slots from its own partition; an empty one could serve nobody.
    name: 'slot_for_each_acceptor',
    reads: ['memory', 'threads'],
    check({ memory, threads }, report) {
      if (memory.slots >= threads.acceptors) return;
      report(['memory', 'slots'], `must be at least threads.acceptors (${threads.acceptors})`);
    },
  },
  {
    // One body of the largest size must not keep its acceptor from taking any other. A block of the
    // arena holds the head as well and is a power of two: 16 MiB of body take 32 MiB.
    name: 'arena_holds_two_bodies',
    reads: ['memory', 'threads', 'listen'],
    check({ memory, threads, listen }, report) {
      const block = 2 ** blockOrder(listen.max_body + headBlobBytesMax);
      const least = 2 * block * threads.acceptors;
      if (memory.arena >= least) return;
      const reason =
        `for each acceptor 2 blocks of ${formatSize(block)}, ` +
        'the power of two that holds listen.max_body and a head';
      report(['memory', 'arena'], `must be at least ${formatSize(least)}: ${reason}`);
    },
  },
  {
    // The deadline would always come first, and the operator wait for a limit that never acts.
    name: 'first_token_within_total',
    reads: ['timeouts'],
    check({ timeouts }, report) {
      if (timeouts.first_token <= timeouts.total) return;
      const total = formatDuration(timeouts.total);
      const first = formatDuration(timeouts.first_token);
      report(
        ['timeouts', 'first_token'],
        `must be at most timeouts.total (${total}); it is ${first}`,
      );
    },
  },
  {
    // A probe slower than the interval would overlap the next and count twice.
    name: 'probe_ends_before_the_next',
    reads: ['health'],
    check({ health }, report) {
      if (health.timeout <= health.interval) return;
      const interval = formatDuration(health.interval);
      report(['health', 'timeout'], `must be at most health.interval (${interval})`);
    },
  },
  {
    // A page that comes after the next was asked for would be written over it.
    name: 'scrape_ends_before_the_next',
    reads: ['engine_metrics'],
    check({ engine_metrics: { interval, timeout } }, report) {
      if (interval === 0 || timeout <= interval) return;
      const limit = formatDuration(interval);
      report(['engine_metrics', 'timeout'], `must be at most engine_metrics.interval (${limit})`);
    },
  },
  {
    // Two listeners cannot share an address; found here it has a line, found at bind it has none.
    name: 'ports_differ',
    reads: ['listen', 'admin'],
    check({ listen, admin }, report) {
      if (listen.port === 0 || listen.port !== admin.port) return;
      const anywhere = [listen.host, admin.host].some(
        (host) => host === '0.0.0.0' || host === '::',
      );
      if (!anywhere && listen.host !== admin.host) return;
      report(['admin', 'port'], 'must differ from listen.port');
    },
  },
  {
    // Slot tables and replica addresses are not for the network; without a token nobody is asked.
    name: 'open_admin_needs_token',
    reads: ['admin'],
    check({ admin }, report) {
      if (admin.token !== '' || isLoopbackHost(admin.host)) return;
      report(['admin', 'host'], 'must be a loopback address while admin.token is empty');
    },
  },
  {
    // A row of the replica table has one bit for each.
    name: 'adapters_fit_the_table',
    reads: ['models'],
    check({ models }, report) {
      for (const [index, model] of models.entries()) {
        if (adaptersOf(model).length <= adaptersMax) continue;
        report(['models', index, 'replicas'], `must have at most ${adaptersMax} adapters in all`);
      }
    },
  },
  {
    // /admin/replicas/{name} and the replica label of the metrics know no model.
    name: 'replica_names_unique',
    reads: ['models'],
    check({ models }, report) {
      const claim = uniqueNames(report);
      for (const [index, model] of models.entries()) {
        for (const [nth, { name }] of model.replicas.entries()) {
          if (name !== undefined) claim(name, ['models', index, 'replicas', nth, 'name']);
        }
      }
    },
  },
  {
    // Listed twice, a server would be picked twice as often and hold twice its max_in_flight.
    name: 'replica_urls_unique_in_model',
    reads: ['models'],
    check({ models }, report) {
      for (const [index, model] of models.entries()) {
        const claim = uniqueNames(report);
        for (const [nth, { url }] of model.replicas.entries()) {
          claim(url, ['models', index, 'replicas', nth, 'url']);
        }
      }
    },
  },
  {
    // The replica table has a fixed size: one row per replica of any model.
    name: 'replicas_fit_the_table',
    reads: ['models'],
    check({ models }, report) {
      const count = models.reduce((sum, model) => sum + model.replicas.length, 0);
      if (count > replicasMax)
        report(['models'], `must have at most ${replicasMax} replicas in all`);
    },
  },
  {
    // Weight 0 takes no requests: a model of such replicas would answer 503 for ever.
    name: 'model_has_weight',
    reads: ['models'],
    check({ models }, report) {
      for (const [index, model] of models.entries()) {
        if (model.replicas.some((replica) => replica.weight > 0)) continue;
        report(['models', index, 'replicas'], 'must have a replica with a weight above 0');
      }
    },
  },
  {
    // A key that two tenants have would be billed to the one that stands first.
    name: 'tenants_and_keys_unique',
    reads: ['tenants'],
    check({ tenants }, report) {
      const claimName = uniqueNames(report);
      const claimKey = uniqueNames(report);
      for (const [index, { name, keys }] of tenants.entries()) {
        claimName(name, ['tenants', index, 'name']);
        const claimId = uniqueNames(report);
        for (const [nth, { id, sha256 }] of keys.entries()) {
          claimId(id, ['tenants', index, 'keys', nth, 'id']);
          claimKey(sha256, ['tenants', index, 'keys', nth, 'sha256']);
        }
      }
    },
  },
  {
    // Nobody would count, and nobody would notice.
    name: 'store_has_an_address',
    reads: ['limits'],
    check({ limits: { store, redis } }, report) {
      if (store !== 'redis') return;
      const { mode, urls, master } = redis;
      if (urls.length === 0) report(['limits', 'redis', 'urls'], 'is needed for `store: redis`');
      if (mode === 'single' && urls.length > 1) {
        report(['limits', 'redis', 'urls'], 'has one address unless `mode` is cluster or sentinel');
      }
      for (const [index, url] of urls.entries()) {
        if (mode === 'single' || !/^[^/]*\/\/[^/]+\/\d/.test(url)) continue;
        report(['limits', 'redis', 'urls', index], 'has a database, which only `single` has');
      }
      if (new Set(urls.map((url) => url.startsWith('rediss:'))).size > 1) {
        report(['limits', 'redis', 'urls'], 'must be all with TLS (rediss://) or all without');
      }
      if (mode === 'sentinel' && master === '') {
        report(['limits', 'redis', 'master'], 'is needed for `mode: sentinel`');
      }
    },
  },
  {
    // The table of limits has a fixed size: a row per tenant and per model of it for which something is counted.
    name: 'limits_fit_the_table',
    reads: ['tenants'],
    check({ tenants }, report) {
      const all = tenants.flatMap(({ limits, model_limits }) => [
        limits,
        ...Object.values(model_limits),
      ]);
      if (all.filter(isCounted).length > limitRowsMax)
        report(['tenants'], `must have at most ${limitRowsMax} limits in all`);
    },
  },
  {
    // The file is what they are read from, also after a restart; its ending tells its kind apart from
    // the numbers of renamed files.
    name: 'ledger_has_a_file',
    reads: ['usage', 'tenants'],
    check({ usage, tenants }, report) {
      const isFile = /[^/.][^/]*\.[^/.]*[^/.\d][^/.]*$/.test(usage.file);
      if (isFile) return;
      const must = 'must name a file with an ending such as usage.ndjson';
      for (const sink of sinkNames) {
        if (usage[sink] !== undefined) report(['usage', 'file'], `${must}: usage.${sink} reads it`);
      }
      for (const [index, { budget }] of tenants.entries()) {
        if (!hasBudget(budget)) continue;
        report(['tenants', index, 'budget'], `needs usage.file, which ${must}`);
      }
    },
  },
  {
    // Without a price nothing is ever spent, and whoever wrote a budget wanted it to act.
    name: 'budgets_have_prices',
    reads: ['models', 'tenants'],
    check({ models, tenants }, report) {
      if (models.some(({ price }) => price !== undefined)) return;
      for (const [index, { budget }] of tenants.entries()) {
        if (hasBudget(budget)) report(['tenants', index, 'budget'], 'needs a model with a price');
      }
    },
  },
];
