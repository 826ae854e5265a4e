import { expect, test } from 'vitest';
import { isForbiddenHost, isLoopbackHost } from '../../../src/config/address.ts';

// Hosts as URL.hostname writes them, so that every spelling of an address is covered.
test.each([
  'http://169.254.169.254',
  'http://2852039166', // 169.254.169.254 as one number
  'http://0xa9.0xfe.0xa9.0xfe',
  'http://0251.0376.0251.0376',
  'http://[::ffff:169.254.169.254]',
  'http://[fe80::1]',
  'http://[fd00:ec2::254]',
  'http://metadata.google.internal',
  'http://METADATA.google.internal.',
  'http://0.0.0.0',
  'http://[::]',
  'http://224.0.0.1',
  'http://255.255.255.255',
  'http://100.100.100.200',
])('%s may not be a replica', (url) => {
  expect(isForbiddenHost(new URL(url).hostname)).toBe(true);
});

test.each([
  'http://127.0.0.1',
  'http://[::1]',
  'http://localhost',
  'http://10.0.0.7',
  'http://192.168.1.1',
  'http://169.253.1.1',
  'http://gpu-7.cluster.local',
  'http://[fd12::1]',
])('%s may be a replica', (url) => {
  expect(isForbiddenHost(new URL(url).hostname)).toBe(false);
});

test('only this machine is loopback', () => {
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', '[::1]', 'localhost']) {
    expect(isLoopbackHost(host), host).toBe(true);
  }
  for (const host of ['0.0.0.0', '::', '10.0.0.1', '128.0.0.1', 'localhost.example.com']) {
    expect(isLoopbackHost(host), host).toBe(false);
  }
});
