/** Addresses of Redis as the config has them, for shared limits and for usage events alike. */
import { expect, test } from 'vitest';
import { parseNode, serverName } from '../../../src/redis/nodes.ts';

const plain = { port: 6379, isTls: false, username: '', password: '', database: 0 };

test.each([
  ['redis://redis-1', { ...plain, host: 'redis-1' }],
  ['redis://10.0.0.7:6380/', { ...plain, host: '10.0.0.7', port: 6380 }],
  ['redis://[::1]:6380', { ...plain, host: '::1', port: 6380 }],
  [
    'rediss://r.example:443/12',
    { ...plain, host: 'r.example', port: 443, isTls: true, database: 12 },
  ],
  ['redis://u%40x:p%2F%3A@h', { ...plain, host: 'h', username: 'u@x', password: 'p/:' }],
])('%s', (text, node) => {
  expect(parseNode(text)).toEqual(node);
});

test.each([
  ['redis.example', { servername: 'redis.example' }],
  ['127.0.0.1', {}],
  ['::1', {}],
])('TLS asks for a server by its name, and never by an address: %s', (host, name) => {
  expect(serverName(host)).toEqual(name);
});
