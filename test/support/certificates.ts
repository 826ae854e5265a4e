/** Certificates for servers of tests, made by openssl. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { thisMachine } from '../../scripts/test/servers.ts';

export const hasOpenssl = thisMachine.has('openssl');

/** Of this machine on loopback, signed by itself, in files of the folder. */
export function makeCertificate(folder: string, name: string): { cert: string; key: string } {
  const cert = join(folder, `${name}.pem`);
  const key = join(folder, `${name}.key`);
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
  const made = ['-days', '2', '-nodes', '-newkey', 'rsa:2048', '-keyout', key, '-out', cert];
  execFileSync('openssl', ['req', '-x509', ...subject, ...made], { stdio: 'ignore' });
  return { cert, key };
}
