/** A small model and a larger one behind one name, through whole gateways. */
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { type Answer, chatBody, post, withReplicas } from '../support/scenario.ts';

type Headers = Readonly<Record<string, string>>;

const ask = (
  gateway: GatewayProcess,
  model: string,
  prompt: string,
  headers: Headers = {},
): Promise<Answer> => post(gateway.url, chatBody(prompt, { model, max_tokens: 1 }), headers);

describe.each(testEngines)('on %s', (engine) => {
  const withCascade = (
    use: (gateway: GatewayProcess) => Promise<void>,
    more: Partial<ConfigInput> = {},
  ): Promise<void> =>
    withReplicas(2, {}, ([small, large]) => {
      const models = [
        {
          name: 'small',
          aliases: ['auto'],
          cascade: { model: 'large', prompt_bytes: '4KiB' },
          replicas: [{ url: small!.url, name: 's1' }],
        },
        { name: 'large', replicas: [{ url: large!.url, name: 'l1' }] },
      ];
      return withGateway({ config: { listen: { engine }, ...more, models } }, use);
    });

  test('the length of the prompt decides, and the wish of the client before it', async () => {
    const long = 'x'.repeat(5000);
    const wish = (size: string): Headers => ({ 'x-sluice-cascade': size });
    await withCascade(async (gateway) => {
      for (const [name, prompt, headers, served] of [
        ['small', 'short', {}, 'small'],
        ['auto', long, {}, 'large'],
        ['small', 'short', wish('large'), 'large'],
        ['small', long, wish('small'), 'small'],
        ['large', long, wish('small'), 'large'],
      ] as const) {
        const answer = await ask(gateway, name, prompt, headers);
        expect(answer.status).toBe(200);
        expect(answer.headers.get('x-sluice-model')).toBe(served);
        // An alias that stays where it is reaches its replica as it came.
        expect(JSON.parse(answer.text).model).toBe(served);
      }
      const refused = await ask(gateway, 'small', 'short', wish('medium'));
      expect(refused.status).toBe(400);
      expect(JSON.parse(refused.text).error).toMatchObject({ param: 'x-sluice-cascade' });
    });
  });

  test('a key for the small model gets the large one by length, not by asking for it', async () => {
    const [narrow, wide] = [newKey(), newKey()];
    const keys = [
      { id: 'narrow', sha256: sha256Of(narrow), models: ['small'] },
      { id: 'wide', sha256: sha256Of(wide) },
    ];
    const tenants = [{ name: 't', keys }];
    await withCascade(
      async (gateway) => {
        const as = (key: string, more: Headers = {}) => ({
          authorization: `Bearer ${key}`,
          ...more,
        });
        const large = { 'x-sluice-cascade': 'large' };
        const byLength = await ask(gateway, 'small', 'x'.repeat(5000), as(narrow));
        expect(byLength.headers.get('x-sluice-model')).toBe('large');
        const picked = await ask(gateway, 'small', 'short', as(narrow, large));
        expect(picked.status).toBe(403);
        const allowed = await ask(gateway, 'small', 'short', as(wide, large));
        expect(allowed.headers.get('x-sluice-model')).toBe('large');
      },
      { tenants },
    );
  });

  test('what a tenant wants is what its requests would say, and a reload changes it', async () => {
    const [key, token] = [newKey(), 'a-token'];
    await withReplicas(2, {}, async ([small, large]) => {
      const configWith = (cascade: 'auto' | 'large' | 'small'): ConfigInput => ({
        ...{ listen: { engine }, admin: { token } },
        models: [
          {
            name: 'small',
            cascade: { model: 'large', prompt_bytes: '4KiB' },
            replicas: [{ url: small!.url }],
          },
          { name: 'large', replicas: [{ url: large!.url }] },
        ],
        // It may not ask for the larger model, and gets it.
        tenants: [
          { name: 't', cascade, models: ['small'], keys: [{ id: 'k', sha256: sha256Of(key) }] },
        ],
      });
      await withGateway({ config: configWith('large') }, async (gateway) => {
        const served = async (prompt: string, wish?: string): Promise<string | null> => {
          const header = wish === undefined ? {} : { 'x-sluice-cascade': wish };
          const headers = { authorization: `Bearer ${key}`, ...header };
          return (await ask(gateway, 'small', prompt, headers)).headers.get('x-sluice-model');
        };
        const long = 'x'.repeat(5000);
        expect(await served('short')).toBe('large');
        expect(await served('short', 'small')).toBe('small');
        for (const [cascade, ofShort, ofLong] of [
          ['small', 'small', 'small'],
          ['auto', 'small', 'large'],
        ] as const) {
          gateway.writeConfig(configWith(cascade));
          expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
          expect(await served('short')).toBe(ofShort);
          expect(await served(long)).toBe(ofLong);
        }
      });
    });
  });
});
