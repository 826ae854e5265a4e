/**
 * How the Kafka sink gets in: what the config says of TLS and SASL reaches the broker, whatever the
 * mechanism, and who is wrong stays outside and hears why.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openSink } from '../../src/ledger/sinks/open-sink.ts';
import { hasOpenssl, makeCertificate } from '../support/certificates.ts';
import { type KafkaDoor, kafkaDoor } from '../support/kafka-door.ts';
import { loaded, models } from '../unit/config/support.ts';

const login = { username: 'sluice', password: 'pa=ss,word%40' };
let folder: string;
let pems: { cert: string; key: string };
let door: KafkaDoor;

async function open(tls: object | undefined, sasl: object | undefined): Promise<void> {
  const kafka = { brokers: [`localhost:${door.port}`], topic: 'usage', tls, sasl };
  const text = `usage: ${JSON.stringify({ file: 'u.ndjson', kafka })}\n${models}`;
  const files = { [pems.cert]: '-----BEGIN ', [pems.key]: '-----BEGIN ' };
  const sink = await openSink('kafka', loaded(text, { files }).usage);
  await sink.close();
}

describe.runIf(hasOpenssl)('kafka', () => {
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-kafka-'));
    pems = makeCertificate(folder, 'ledger');
    door = await kafkaDoor(pems, login);
  });
  afterAll(async () => {
    await door.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const both = (): object => ({ ca: pems.cert, ...pems });

  test.each(['plain', 'scram-sha-256', 'scram-sha-512'])(
    'logs in by %s, over TLS with a certificate of its own',
    async (mechanism) => {
      door.logins.length = 0;
      await open(both(), { mechanism, ...login });
      const { username } = login;
      expect(door.logins).toEqual([
        { mechanism: mechanism.toUpperCase(), username, isIn: true, name: 'ledger' },
      ]);
    },
  );

  test.each(['plain', 'scram-sha-256', 'scram-sha-512'])(
    'a wrong password is refused once, by %s, and not said',
    async (mechanism) => {
      door.logins.length = 0;
      const password = 'wrong-s3cret';
      const refused: unknown = await open(both(), { mechanism, ...login, password }).catch(
        (error) => error,
      );
      expect(String(refused)).toContain('no entry');
      expect(String(refused)).not.toContain(password);
      expect(door.logins.map(({ isIn }) => isIn)).toEqual([false]);
    },
  );

  test('a server whose authority is not named is not talked to', async () => {
    door.logins.length = 0;
    const { cert, key } = pems;
    await expect(open({ cert, key }, { mechanism: 'plain', ...login })).rejects.toThrow(
      'self-signed certificate',
    );
    await expect(open({}, { mechanism: 'plain', ...login })).rejects.toThrow('self-signed');
    expect(door.logins).toEqual([]);
  });
});
