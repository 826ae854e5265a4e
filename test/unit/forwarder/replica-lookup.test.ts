import { expect, test } from 'vitest';
import { forbiddenAddressCode, replicaLookup } from '../../../src/forwarder/replica-lookup.ts';

const resolve = (host: string, all: boolean): Promise<{ error: unknown; answer: unknown }> =>
  new Promise((done) => replicaLookup(host, { all }, (error, answer) => done({ error, answer })));

test('a name of this machine resolves, as one address and as all', async () => {
  const one = await resolve('localhost', false);
  expect(one.error).toBeNull();
  expect(one.answer).toMatch(/^(127\.|::1$)/);
  const all = await resolve('localhost', true);
  expect(all.answer).toContainEqual(expect.objectContaining({ address: one.answer }));
});

test.each(['169.254.169.254', '0.0.0.0', '::ffff:169.254.169.254', 'fe80::1'])(
  'an answer of %s is refused',
  async (address) => {
    const { error } = await resolve(address, false);
    expect(error).toMatchObject({ code: forbiddenAddressCode });
  },
);

test('a name without an address keeps the error of the resolver', async () => {
  const { error } = await resolve('no-such-name.invalid', false);
  expect(error).toMatchObject({ code: expect.stringMatching(/^E/) });
  expect(error).not.toMatchObject({ code: forbiddenAddressCode });
});
