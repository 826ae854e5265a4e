/**
 * Metrics by tenant through the whole gateway: what 10,000 tenants have, in so many series as the config
 * says; and the whole page with everything on, as promtool sees it.
 */
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { thisMachine } from '../../scripts/test/servers.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { testEngines, withGateway } from '../support/gateway.ts';
import { sum, total, withReplicas } from '../support/scenario.ts';
import { call } from '../support/traffic.ts';

const tenantsCount = 10_000;
const cap = 5;

test.each(testEngines)('%s: 10,000 tenants have series of the first few and one more', (engine) =>
  withReplicas(1, { model: 'm', profile: 'instant' }, async ([replica]) => {
    const key = newKey();
    const secretOf = (tenant: number): string => `${key}-${tenant}`;
    // Of every part of the config; with a key for each tenant the file would be larger than it may be.
    const far = Array.from({ length: 60 }, (_, i) => 100 + i * 165);
    const tenants = Array.from({ length: tenantsCount }, (_, i) => ({
      name: `t${i}`,
      keys: i < 2 || far.includes(i) ? [{ id: 'k', sha256: sha256Of(secretOf(i)) }] : [],
      ...(i === 1 && { limits: { requests_per_minute: 1 } }),
    }));
    const config = {
      ...{ listen: { engine }, tenants, metrics: { tenants: cap, genai: true } },
      models: [{ name: 'm', aliases: ['alias'], replicas: [{ url: replica!.url }] }],
    };
    await withGateway({ config }, async (gateway) => {
      const ask = (tenant: number, turn = 0, stream = false) =>
        call(gateway.port, {
          nonce: `${tenant}-${turn}`,
          headers: { authorization: `Bearer ${secretOf(tenant)}` },
          ...{ stream, extra: { stream_options: stream ? { include_usage: true } : undefined } },
        }).ended;
      const ofTenant = async (tenant: string, name = 'requests_total', labels = {}) =>
        total(await gateway.metrics(), `sluice_tenant_${name}`, { tenant, ...labels });
      const done = [await ask(0), await ask(0, 1, true)];
      done.push(...(await Promise.all(far.map((tenant) => ask(tenant)))));
      const [first, second] = [await ask(1), await ask(1, 1)];
      expect([first.status, second.status]).toEqual([200, 429]);
      const refused = await call(gateway.port, { nonce: 'x' }).ended;
      expect(refused.status).toBe(401);

      expect(await ofTenant('t0', 'requests_total', { code: 200 })).toBe(2);
      expect(await ofTenant('t1', 'requests_total', { code: 200 })).toBe(1);
      expect(await ofTenant('t1', 'requests_total', { code: 429 })).toBe(1);
      expect(await ofTenant('other')).toBe(far.length);
      const output = sum(done.slice(0, 2).map(({ tokensDue }) => tokensDue));
      expect(await ofTenant('t0', 'tokens_total', { model: 'm', type: 'output' })).toBe(output);
      expect(await ofTenant('t0', 'tokens_total', { type: 'input' })).toBeGreaterThan(0);

      // A stream of the first tenant, and one of two beyond the cap; t1 has none.
      const [durations, firstTokens] = ['request_duration_seconds', 'time_to_first_token_seconds'];
      expect(await ofTenant('t0', `${durations}_count`)).toBe(2);
      expect(await ofTenant('t1', `${durations}_count`)).toBe(2);
      expect(await ofTenant('other', `${durations}_count`)).toBe(far.length);
      expect(await ofTenant('t0', `${firstTokens}_count`)).toBe(1);
      expect(await ofTenant('other', `${firstTokens}_count`)).toBe(0);
      const late = await Promise.all([far[0]!, far[1]!].map((tenant) => ask(tenant, 1, true)));
      expect(late.map(({ status }) => status)).toEqual([200, 200]);
      expect(await ofTenant('other', `${firstTokens}_count`)).toBe(2);
      expect(await ofTenant('other', `${durations}_count`)).toBe(far.length + 2);
      expect(await ofTenant('t0', `${firstTokens}_count`)).toBe(1);
      const firstSeconds = await ofTenant('t0', `${firstTokens}_sum`);
      expect(firstSeconds).toBeGreaterThan(0);
      expect(firstSeconds).toBeLessThanOrEqual(await ofTenant('t0', `${durations}_sum`));

      const families = await gateway.metrics();
      const tenantsOf = (name: string) =>
        new Set(
          [...families.get(`sluice_tenant_${name}`)!.samples.keys()].map(
            (sample) => /tenant="([^"]*)"/.exec(sample)?.[1],
          ),
        );
      expect(tenantsOf('requests_total')).toEqual(new Set(['t0', 't1', 'other']));
      expect(tenantsOf(durations)).toEqual(new Set(['t0', 't1', 'other']));
      expect(tenantsOf(firstTokens)).toEqual(new Set(['t0', 'other']));
      done.push(...late);
      const chat = { gen_ai_operation_name: 'chat', gen_ai_request_model: 'm' };
      const genai = (name: string, labels = {}) =>
        total(families, `gen_ai_${name}`, { ...chat, ...labels });
      const answered = done.length + 2; // one of those of t1 was no more than refused
      expect(genai('server_request_duration_seconds_count')).toBe(answered);
      expect(genai('server_request_duration_seconds_count', { error_type: '429' })).toBe(1);
      const genaiDurations = families.get('gen_ai_server_request_duration_seconds')!;
      const well = [...genaiDurations.samples].filter(
        ([sample]) => sample.includes('_count{') && !sample.includes('error_type'),
      );
      expect(sum(well.map(([, count]) => count))).toBe(answered - 1);
      expect(genai('server_time_to_first_token_seconds_count')).toBe(1 + late.length);
      expect(genai('server_time_per_output_token_seconds_count')).toBe(1 + late.length);
      const outputs = { gen_ai_token_type: 'output' };
      expect(genai('client_token_usage_count', outputs)).toBe(answered - 1);
      expect(genai('client_token_usage_sum', outputs)).toBe(
        sum([...done, first].map(({ tokensDue }) => tokensDue)),
      );
      if (thisMachine.has('promtool')) {
        const page = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
        const lint = spawnSync('promtool', ['check', 'metrics'], { input: page });
        expect(`${lint.stdout}${lint.stderr}`).toBe('');
        expect(lint.status).toBe(0);
        expect(page).toContain(`sluice_tenant_${durations}_bucket{le="+Inf",tenant="other"}`);
        expect(page).toContain(`sluice_tenant_${firstTokens}_bucket{le="+Inf",tenant="other"}`);
      }
    });
  }),
);
