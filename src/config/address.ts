/**
 * Addresses no replica may have: link-local, cloud metadata, unspecified and multicast.
 *
 * Pure; any thread. The config refuses them when written as a literal; a name is checked again with
 * `isForbiddenAddress` by whoever resolves it. Loopback is allowed: the operator wrote it down.
 */
import { BlockList, isIP } from 'node:net';

const forbidden = new BlockList();
forbidden.addSubnet('0.0.0.0', 8, 'ipv4'); // "this host": reaches loopback without saying so
forbidden.addSubnet('169.254.0.0', 16, 'ipv4'); // link-local; 169.254.169.254 hands out cloud credentials
forbidden.addSubnet('224.0.0.0', 4, 'ipv4'); // multicast
forbidden.addSubnet('240.0.0.0', 4, 'ipv4'); // reserved, broadcast
forbidden.addAddress('100.100.100.200', 'ipv4'); // metadata, Alibaba Cloud
forbidden.addAddress('168.63.129.16', 'ipv4'); // platform channel, Azure
forbidden.addAddress('::', 'ipv6');
forbidden.addSubnet('fe80::', 10, 'ipv6'); // link-local
forbidden.addSubnet('ff00::', 8, 'ipv6'); // multicast
forbidden.addAddress('fd00:ec2::254', 'ipv6'); // metadata, AWS
forbidden.addAddress('fd20:ce::254', 'ipv6'); // metadata, Google Cloud

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

const metadataNames: ReadonlySet<string> = new Set([
  'metadata',
  'metadata.google.internal',
  'instance-data',
  'instance-data.ec2.internal',
]);

/** Whether an IP address in text form must never be connected to as a replica. */
export function isForbiddenAddress(address: string): boolean {
  return isListed(forbidden, address);
}

/** Whether a host, as `URL.hostname` writes it, may be a replica before its name is resolved. */
export function isForbiddenHost(hostname: string): boolean {
  const host = hostname.replace(/\.$/, '').toLowerCase();
  return metadataNames.has(host) || isForbiddenAddress(withoutBrackets(host));
}

/** Whether a host names this machine only. */
export function isLoopbackHost(host: string): boolean {
  return host === 'localhost' || isListed(loopback, withoutBrackets(host));
}

function isListed(list: BlockList, address: string): boolean {
  const family = isIP(address);
  // BlockList applies IPv4 rules to IPv4-mapped IPv6 addresses too (::ffff:169.254.169.254).
  return family !== 0 && list.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

function withoutBrackets(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1');
}
