/** Option parsers that several commands share. */
import { InvalidArgumentError } from 'commander';

export function portNumber(value: string): number {
  const port = Number(value);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new InvalidArgumentError('must be a port number');
  }
  return port;
}
