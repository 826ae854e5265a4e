/**
 * The door of a Kafka broker: TLS with a certificate on both sides, and the exchange by which a client logs
 * in (API versions, SASL handshake, SASL authenticate). It has no topics: kcat's mock cluster has those, and
 * no logins. SCRAM as in RFC 5802, PLAIN as in RFC 4616, the server's side of both.
 */
import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';

const ApiKey = { saslHandshake: 17, apiVersions: 18, saslAuthenticate: 36 } as const;
/** SASL_AUTHENTICATION_FAILED of the protocol. */
const authenticationFailed = 58;
const iterations = 4096;

interface Login {
  readonly username: string;
  readonly password: string;
}

export interface KafkaDoor {
  readonly port: number;
  /** In the order of their requests; `isIn`: the password was right. */
  readonly logins: { mechanism: string; username: string; isIn: boolean; name: string }[];
  close(): Promise<void>;
}

const int16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
};
const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const string = (text: string): Buffer => Buffer.concat([int16(text.length), Buffer.from(text)]);
const sized = (bytes: Buffer): Buffer => Buffer.concat([int32(bytes.length), bytes]);

/** What the server answers, and whether that was the last word; undefined: not let in. */
type Step = (message: string) => { answer: string; username?: string } | undefined;

function plain({ username, password }: Login): Step {
  return (message) => {
    const [, name = '', word = ''] = message.split('\0');
    return name === username && word === password ? { answer: '', username } : undefined;
  };
}

function scram({ username, password }: Login, hash: string): Step {
  const salt = randomBytes(16);
  let firsts = '';
  return (message) => {
    if (firsts === '') {
      const bare = message.slice('n,,'.length);
      const [, name, nonce] = /^n=([^,]*),r=(.*)$/.exec(bare) ?? [];
      if (name !== username) return undefined;
      const all = `${nonce}${randomBytes(12).toString('hex')}`;
      const answer = `r=${all},s=${salt.toString('base64')},i=${iterations}`;
      firsts = `${bare},${answer}`;
      return { answer };
    }
    const [, withoutProof, proof = ''] = /^(.*),p=(.*)$/.exec(message) ?? [];
    const length = createHash(hash).digest().length;
    const salted = pbkdf2Sync(password, salt, iterations, length, hash);
    const mac = (key: Buffer, text: string): Buffer => createHmac(hash, key).update(text).digest();
    const all = `${firsts},${withoutProof}`;
    const clientKey = mac(salted, 'Client Key');
    const signature = mac(createHash(hash).update(clientKey).digest(), all);
    const right = clientKey.map((byte, i) => byte ^ (signature[i] as number));
    const shown = Buffer.from(proof, 'base64');
    if (shown.length !== length || !timingSafeEqual(shown, right)) return undefined;
    return { answer: `v=${mac(mac(salted, 'Server Key'), all).toString('base64')}`, username };
  };
}

const steps: Readonly<Record<string, (login: Login) => Step>> = {
  PLAIN: plain,
  'SCRAM-SHA-256': (login) => scram(login, 'sha256'),
  'SCRAM-SHA-512': (login) => scram(login, 'sha512'),
};

export async function kafkaDoor(
  { cert, key }: { cert: string; key: string },
  login: Login,
): Promise<KafkaDoor> {
  const logins: KafkaDoor['logins'] = [];
  const pems = { cert: readFileSync(cert), key: readFileSync(key), ca: readFileSync(cert) };
  const sockets = new Set<TLSSocket>();
  const server = createServer({ ...pems, requestCert: true, rejectUnauthorized: true });
  server.on('tlsClientError', () => {}); // the client says so
  server.on('secureConnection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    let mechanism = '';
    let step: Step | undefined;
    const bodyOf = (api: number, body: Buffer): Buffer => {
      if (api === ApiKey.apiVersions) {
        const ranges = [
          [ApiKey.saslHandshake, 0, 1],
          [ApiKey.apiVersions, 0, 2],
          [ApiKey.saslAuthenticate, 0, 0],
        ];
        return Buffer.concat([
          int16(0),
          int32(ranges.length),
          ...ranges.flat().map(int16),
          int32(0),
        ]);
      }
      if (api === ApiKey.saslHandshake) {
        mechanism = body.toString('utf8', 2);
        step = steps[mechanism]?.(login);
        const names = Object.keys(steps).map(string);
        return Buffer.concat([int16(0), int32(names.length), ...names]);
      }
      const said = step?.(body.toString('utf8', 4));
      if (said === undefined || said.username !== undefined) {
        const name = String(socket.getPeerCertificate().subject?.CN);
        logins.push({ mechanism, username: said?.username ?? '', isIn: said !== undefined, name });
      }
      const [error, message] = said === undefined ? [authenticationFailed, 'no entry'] : [0, ''];
      return Buffer.concat([int16(error), string(message), sized(Buffer.from(said?.answer ?? ''))]);
    };
    let rest = Buffer.alloc(0);
    socket.on('data', (bytes) => {
      rest = Buffer.concat([rest, bytes]);
      while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE()) {
        const request = rest.subarray(4, 4 + rest.readInt32BE());
        rest = rest.subarray(4 + request.length);
        const body = request.subarray(10 + request.readInt16BE(8)); // api, version, correlation, client
        socket.write(
          sized(Buffer.concat([request.subarray(4, 8), bodyOf(request.readInt16BE(), body)])),
        );
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    logins,
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
