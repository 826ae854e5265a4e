import type { IncomingMessage } from 'node:http';
import { describe, expect, test } from 'vitest';
import { type Access, mayChange, mayRead } from '../../../src/gateway/admin-access.ts';

const token = 'correct-horse';

interface Facts {
  readonly peer?: string | undefined;
  readonly host?: string;
  readonly origin?: string;
  readonly authorization?: string;
}

function request({ peer = '127.0.0.1', ...headers }: Facts): IncomingMessage {
  return {
    headers: { host: '127.0.0.1:9090', ...headers },
    socket: { remoteAddress: peer },
  } as unknown as IncomingMessage;
}

const bearer = { authorization: `Bearer ${token}` };

describe('reading', () => {
  const table: readonly [string, Facts, Access][] = [
    ['from loopback', {}, 'allowed'],
    ['from loopback by name', { host: 'localhost:9090' }, 'allowed'],
    ['from loopback over IPv6', { peer: '::1', host: '[::1]:9090' }, 'allowed'],
    ['from loopback mapped into IPv6', { peer: '::ffff:127.0.0.1' }, 'allowed'],
    ['from another loopback address', { peer: '127.8.8.8' }, 'allowed'],
    ['with a name that was rebound to loopback', { host: 'evil.example:9090' }, 'unauthorized'],
    ['with a name that only begins like one', { host: '127.0.0.1.evil.example' }, 'unauthorized'],
    ['with a loopback name of somebody', { host: 'localhost.evil.example' }, 'unauthorized'],
    ['with another address as host', { host: '10.0.0.1:9090' }, 'unauthorized'],
    ['with an empty host', { host: '' }, 'unauthorized'],
    ['from the network', { peer: '10.1.2.3' }, 'unauthorized'],
    ['from an address that only begins like one', { peer: '::12' }, 'unauthorized'],
    ['from nowhere', { peer: '' }, 'unauthorized'],
    ['from the network with the token', { peer: '10.1.2.3', ...bearer }, 'allowed'],
    ['with a rebound name and the token', { host: 'evil.example', ...bearer }, 'allowed'],
  ];
  test.each(table)('%s', (_, facts, access) => {
    expect(mayRead(request(facts), token)).toBe(access);
  });

  test('without a token in the config there is nothing the network could send', () => {
    expect(mayRead(request({}), '')).toBe('allowed');
    for (const authorization of ['Bearer ', 'Bearer x', 'Bearer undefined']) {
      expect(mayRead(request({ peer: '10.1.2.3', authorization }), '')).toBe('forbidden');
    }
  });
});

describe('changing', () => {
  const table: readonly [string, Facts, Access][] = [
    ['without a token', {}, 'unauthorized'],
    ['with the token', bearer, 'allowed'],
    ['with the token, scheme in another case', { authorization: `bearer ${token}` }, 'allowed'],
    ['with the token from the network', { peer: '10.1.2.3', ...bearer }, 'allowed'],
    ['with another token', { authorization: 'Bearer wrong' }, 'unauthorized'],
    ['with a prefix of it', { authorization: `Bearer ${token.slice(0, -1)}` }, 'unauthorized'],
    ['with more than it', { authorization: `Bearer ${token}x` }, 'unauthorized'],
    ['with the bare token', { authorization: token }, 'unauthorized'],
    ['by another scheme', { authorization: `Basic ${token}` }, 'unauthorized'],
    ['with two tokens', { authorization: `Bearer ${token} ${token}` }, 'unauthorized'],
    ['from its own pages', { origin: 'http://127.0.0.1:9090', ...bearer }, 'allowed'],
    ['from another origin', { origin: 'https://evil.example', ...bearer }, 'forbidden'],
    ['from another port', { origin: 'http://127.0.0.1:8080', ...bearer }, 'forbidden'],
    ['from an opaque origin', { origin: 'null', ...bearer }, 'forbidden'],
  ];
  test.each(table)('%s', (_, facts, access) => {
    expect(mayChange(request(facts), token)).toBe(access);
  });

  test('without a token in the config nobody may', () => {
    for (const authorization of ['', 'Bearer ', `Bearer ${token}`]) {
      expect(mayChange(request({ authorization }), '')).toBe('forbidden');
    }
  });
});
