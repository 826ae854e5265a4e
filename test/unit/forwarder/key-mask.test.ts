import { expect, test } from 'vitest';
import { KeyMask } from '../../../src/forwarder/key-mask.ts';
import { OwnHeaders } from '../../../src/protocol/own-headers.ts';

const key = 'sk-of-the-gateway-sk-of';

/** What comes of a body that arrives in pieces of so many bytes. */
function masked(body: string, size: number, secrets = [key]): string {
  const mask = KeyMask.of(secrets)!;
  const bytes = Buffer.from(body);
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size)
    parts.push(mask.push(bytes.subarray(at, at + size)));
  parts.push(mask.finish());
  return Buffer.concat(parts).toString();
}

test('the key is covered wherever it is cut, and nothing else', () => {
  const stars = '*'.repeat(key.length);
  const around = `é ${key.slice(0, 9)} ${key.slice(3)} sk-of-the-gateway-sk-o`;
  for (const body of [
    key,
    `${key}${key}`,
    `{"m":"bad key: ${key}"}`,
    `${around}${key}${around}`,
    '',
  ]) {
    for (let size = 1; size <= body.length + 1; size++) {
      expect(masked(body, size), `${size}`).toBe(body.replaceAll(key, stars));
    }
  }
});

test('several secrets are covered, one that is a part of another too', () => {
  const inner = 'of-the-gateway';
  const header = 'Example of a value';
  const secrets = [inner, header, '', key, key];
  const body = `${header}, ${inner}${key} ${key.slice(0, 20)}${header}${inner.slice(0, -1)}`;
  const covered = [key, header, inner].reduce(
    (text, secret) => text.replaceAll(secret, '*'.repeat(secret.length)),
    body,
  );
  for (let size = 1; size <= body.length; size++) {
    expect(masked(body, size, secrets), `${size}`).toBe(covered);
  }
});

test('a value that JSON escapes is covered as it is and as JSON has it', () => {
  const value = 'Digest user="me", path="C:\\\\keys"';
  const { secrets } = new OwnHeaders({ apiKey: '', headers: { authorization: value } });
  const escaped = JSON.stringify(value).slice(1, -1);
  const said = (text: string, plain = text) => `{"m":"${text} is refused"} ${plain}`;
  const stars = said('*'.repeat(escaped.length), '*'.repeat(value.length));
  const body = said(escaped, value);
  expect(JSON.parse(body.slice(0, -value.length)).m).toBe(`${value} is refused`);
  for (let size = 1; size <= body.length; size++) {
    expect(masked(body, size, [...secrets]), `${size}`).toBe(stars);
  }
});

test('the beginning of a key that does not go on is not lost', () => {
  expect(masked(`x${key.slice(0, -1)}`, 3)).toBe(`x${key.slice(0, -1)}`);
});

test('what is too short for a secret is left alone', () => {
  expect(KeyMask.of(['', ''])).toBeUndefined();
  expect(KeyMask.of(['EMPTY'])).toBeUndefined();
});
