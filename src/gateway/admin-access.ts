/**
 * Who may do what on the admin listener. Pure.
 *
 * Probes of an orchestrator (/healthz, /readyz) are open. Reading needs a loopback peer or the token.
 * Changing needs the token, always, and a request no browser page of another origin could have made.
 * A Host that is no loopback name on a loopback peer is refused: that is DNS rebinding.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';

export type Access = 'allowed' | 'unauthorized' | 'forbidden';

export function mayRead(request: IncomingMessage, token: string): Access {
  if (hasToken(request, token)) return 'allowed';
  if (isLoopback(request.socket.remoteAddress) && hasLocalHost(request)) return 'allowed';
  return token === '' ? 'forbidden' : 'unauthorized';
}

export function mayChange(request: IncomingMessage, token: string): Access {
  if (token === '') return 'forbidden';
  if (!hasToken(request, token)) return 'unauthorized';
  const { origin, host } = request.headers;
  if (origin === undefined) return 'allowed';
  return URL.parse(origin)?.host === host ? 'allowed' : 'forbidden';
}

function hasToken(request: IncomingMessage, token: string): boolean {
  const sent = /^Bearer ([\x21-\x7e]+)$/i.exec(request.headers.authorization ?? '')?.[1];
  if (token === '' || sent === undefined) return false;
  // Digests have one length, so the comparison tells nothing about the token's.
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(sent), digest(token));
}

function isLoopback(address: string | undefined): boolean {
  return address !== undefined && /^(127\.|::1$|::ffff:127\.)/.test(address);
}

function hasLocalHost(request: IncomingMessage): boolean {
  const host = (request.headers.host ?? '').replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  return host === 'localhost' || (isIP(host) !== 0 && isLoopback(host));
}
