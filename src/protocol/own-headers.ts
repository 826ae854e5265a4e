/**
 * What the gateway itself says in the head of every request to one replica: the key it has there, and the
 * headers of the config. Pure; any thread; made once for each replica.
 *
 * They take the place of the same headers of a client, and a key of the gateway that of every key of a
 * client, whichever header either is in.
 */

export interface OwnHeadersSource {
  /** Empty: none. */
  readonly apiKey: string;
  /** The header that carries it, in lower case; absent: `authorization`, as a bearer token. */
  readonly apiKeyHeader?: string | undefined;
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

const bearerHeader = 'authorization';
const keyHeaders: ReadonlySet<string> = new Set([bearerHeader, 'x-api-key', 'api-key']);

/** The header carries the key of whoever asks; lower-case name in. */
export const isKeyHeader = (name: string): boolean => keyHeaders.has(name);

export class OwnHeaders {
  /** Name, value, name, value ... */
  readonly list: readonly string[];
  /** The replica is asked with a key of the gateway: no client's goes there. */
  readonly hasKey: boolean;
  /** What no client may read, as it is and as a string of JSON has it. */
  readonly secrets: readonly string[];
  readonly #names: ReadonlySet<string>;

  constructor({ apiKey, apiKeyHeader = bearerHeader, headers = {} }: OwnHeadersSource) {
    // What an unset variable has left empty is not sent.
    const own = Object.entries(headers).filter(([, value]) => value !== '');
    const value = apiKeyHeader === bearerHeader ? `Bearer ${apiKey}` : apiKey;
    const key = apiKey === '' ? [] : [apiKeyHeader, value];
    this.list = [...key, ...own.flat()];
    this.hasKey = apiKey !== '' || own.some(([name]) => isKeyHeader(name));
    this.#names = new Set(this.list.filter((_, i) => i % 2 === 0));
    // A replica may repeat a credential without the scheme before it.
    const credentials = own.filter(([name]) => name === bearerHeader).map(([, text]) => text);
    const secrets = [
      apiKey,
      ...own.map(([, text]) => text),
      ...credentials.map((text) => text.slice(text.indexOf(' ') + 1)),
    ];
    this.secrets = [...new Set(secrets.flatMap((text) => [text, inJson(text)]))];
  }

  /** Whether that header of a client stays behind; lower-case name in. */
  replaces(name: string): boolean {
    return this.#names.has(name) || (this.hasKey && isKeyHeader(name));
  }
}

const inJson = (text: string): string => JSON.stringify(text).slice(1, -1);
