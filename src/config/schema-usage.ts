/** The config of usage events: their file, and who else is told of them. Pure; see schema.ts. */
import { isIP } from 'node:net';
import { z } from 'zod';
import { size } from './units.ts';
import { file, integer, secret } from './values.ts';

const Tls = z
  .strictObject({
    ca: file()
      .optional()
      .describe('PEM file of certificate authorities, in place of those that Node brings.'),
    cert: file().optional().describe('PEM file of the certificate that is shown to the server.'),
    key: file().optional().describe('PEM file of its private key.'),
  })
  .refine(({ cert, key }) => (cert === undefined) === (key === undefined), {
    error: 'must have cert and key, or neither',
  });

const tls = () =>
  Tls.optional().describe(
    'Given, be it empty: connections are encrypted. File names are relative to the config file.',
  );

const user = () => z.string().max(256).prefault('').describe('Name it logs in with; empty: none.');
const password = () => secret().prefault('').describe('Password it logs in with.');

/** Its package takes what is before the first colon for the host: IPv6 only by a name. */
const hostAndPort = () =>
  z.string().regex(/^[A-Za-z0-9._-]{1,253}:\d{1,5}$/, {
    error: 'must be a host and a port such as kafka-1:9092 (an IPv6 address needs a name)',
  });

/** A URL of one scheme and nothing but host and port: credentials have keys of their own. */
const serverUrl = (scheme: string, example: string) =>
  z
    .string()
    .max(2048)
    .refine(
      (text) => {
        const url = URL.parse(text);
        if (url === null || url.protocol !== `${scheme}:` || url.hostname === '') return false;
        const rest = url.username + url.password + url.search + url.hash;
        return rest === '' && (url.pathname === '' || url.pathname === '/');
      },
      { error: `must be a URL such as ${example}, without credentials` },
    );

const Kafka = z.strictObject({
  brokers: z
    .array(hostAndPort())
    .min(1)
    .max(64)
    .describe('Brokers that are asked for the others, as `host:port`.'),
  topic: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,249}$/, {
      error: 'must be 1 to 249 letters, digits, dots, dashes or underscores',
    })
    .describe('Topic of the messages; their key is the tenant.'),
  tls: tls(),
  sasl: z
    .strictObject({
      mechanism: z
        .enum(['plain', 'scram-sha-256', 'scram-sha-512'])
        .describe('How the password is proved.'),
      username: z.string().min(1).max(256).describe('Name it logs in with.'),
      password: secret().describe('Password it logs in with.'),
    })
    .optional()
    .describe('Absent: it does not log in.'),
});

const RedisStream = z.strictObject({
  url: serverUrl('redis', 'redis://10.0.0.7:6379').describe('Address of the server.'),
  username: user(),
  password: password(),
  tls: tls(),
  stream: z.string().min(1).max(512).prefault('sluice:usage').describe('Key of the stream.'),
  maxlen: integer(0, 2_000_000_000)
    .prefault(1_000_000)
    .describe('Entries that are kept, more or less; older ones are trimmed. 0: all.'),
});

const Nats = z
  .strictObject({
    servers: z
      .array(serverUrl('nats', 'nats://10.0.0.7:4222'))
      .min(1)
      .max(64)
      .describe('Servers of one cluster; any will do.'),
    username: user(),
    password: password(),
    token: secret().prefault('').describe('Token it logs in with, in place of name and password.'),
    tls: tls(),
    subject: z
      .string()
      .regex(/^(?:[A-Za-z0-9_-]+|\{tenant\})(?:\.(?:[A-Za-z0-9_-]+|\{tenant\}))*$/, {
        error: 'must be words with dots between, of which one may be {tenant}',
      })
      .prefault('sluice.usage')
      .describe(
        'Subject of a JetStream stream that is there already. `{tenant}` becomes the name of the tenant, dots in it `_`, or `_` for none.',
      ),
  })
  .refine(({ servers, tls }) => tls === undefined || !servers.some(isAddress), {
    // Its package compares the certificate of an address with the name `localhost`.
    error: 'must name servers by host names where there is tls',
    path: ['servers'],
  });

const isAddress = (url: string): boolean =>
  isIP(new URL(url).hostname.replace(/^\[|\]$/g, '')) !== 0;

export const Usage = z.strictObject({
  file: z
    .string()
    .max(4096)
    .prefault('')
    .describe(
      'File for one JSON line per request that reached a replica: who, what, how many tokens, how it ended; relative to the config file. With several acceptors each has one of its own, with its number before the ending. Empty: none.',
    ),
  max_size: size('64KiB', '1GiB')
    .prefault('64MiB')
    .describe('A larger file is renamed to `FILE.1`, and that to `FILE.2`, before the next line.'),
  keep: integer(1, 1000)
    .prefault(10)
    .describe('Renamed files that are kept: what a server that is away can miss, and get later.'),
  buffer: size('1MiB', '1GiB')
    .prefault('16MiB')
    .describe(
      'Lines of each acceptor that wait while the file cannot be written; past it the oldest are lost and counted.',
    ),
  currency: z
    .string()
    .regex(/^[\x20-\x7e]{1,16}$/, { error: 'must be 1 to 16 printable ASCII characters' })
    .prefault('USD')
    .describe('What prices and budgets are in; a word for people.'),
  kafka: Kafka.optional().describe('Events are sent to a topic of Kafka too.'),
  redis_stream: RedisStream.optional().describe('Events are added to a stream of Redis too.'),
  nats: Nats.optional().describe('Events are published to a stream of NATS JetStream too.'),
});
