/** The config of where the limits of tenants are counted. Pure; see schema.ts. */
import { z } from 'zod';
import { duration } from './units.ts';
import { integer, secret } from './values.ts';

export const failureMode = () => z.enum(['open', 'closed']);

function isRedisUrl(text: string): boolean {
  const url = URL.parse(text);
  if (url === null || !/^rediss?:$/.test(url.protocol) || url.hostname === '') return false;
  if (/%(?![0-9a-f]{2})/i.test(url.username + url.password)) return false;
  return /^(\/\d{0,5})?$/.test(url.pathname) && url.search === '' && url.hash === '';
}

const Redis = z.strictObject({
  mode: z
    .enum(['single', 'cluster', 'sentinel'])
    .prefault('single')
    .describe(
      'What `urls` are: one server, nodes of a cluster, or Sentinels that know the master.',
    ),
  urls: z
    .array(
      z
        .string()
        .max(1024)
        .refine(isRedisUrl, {
          error: 'must be redis://host:port or, for TLS, rediss://host:port',
        })
        .meta({ writeOnly: true }),
    )
    .max(64)
    .prefault([])
    .describe(
      'Where Redis, or Valkey, is: `redis://[user[:password]@]host[:port][/database]`. One, or some of the nodes of a cluster, or Sentinels, whose port is 26379 mostly.',
    ),
  master: z.string().max(256).prefault('').describe('Name of the master, for `sentinel`.'),
  username: z
    .string()
    .max(256)
    .prefault('')
    .describe('User of every server, by ACL; the one of a URL is for that address alone.'),
  password: secret().prefault('').describe('Its password.'),
  prefix: z
    .string()
    .regex(/^[\x21-\x7a]{0,64}$/, { error: 'must be visible ASCII without braces' })
    .prefault('sluice:')
    .describe('What all keys begin with; gateways that share limits have the same.'),
  timeout: duration('1ms', '10s')
    .prefault('50ms')
    .describe('A call that takes longer has failed; no request waits longer for one.'),
});

export const SharedLimits = z.strictObject({
  store: z
    .enum(['local', 'redis'])
    .prefault('local')
    .describe(
      'Where `requests_per_minute`, the tokens and the `budget` of tenants are counted: in this gateway, or in a Redis that several gateways share. `concurrency` is counted in each gateway.',
    ),
  redis: Redis.prefault({}).describe('The server of `store: redis`.'),
  failure_mode: failureMode()
    .prefault('open')
    .describe(
      'While the store does not answer: `open`: each gateway allows its share of every limit, and of a budget what it knows to be left; `closed`: requests of tenants with limits or a budget are a 503.',
    ),
  gateways: integer(1, 1000)
    .prefault(1)
    .describe(
      'How many gateways share the limits; each allows its share of the rates while the store is down. Budgets and `concurrency` are not divided by it.',
    ),
});
