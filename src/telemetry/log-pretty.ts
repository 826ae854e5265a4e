/**
 * The line a person reads on a terminal, made from the record of the JSON line. Pure.
 *
 *   12:03:04.567 WARN  forwarder-0 replica is slow  replica=r1 ttft_ms=812
 */
import { styleText } from 'node:util';

type Style = Parameters<typeof styleText>[0];
const levelStyles: Readonly<Record<string, Style>> = {
  trace: 'gray',
  debug: 'gray',
  info: 'green',
  warn: 'yellow',
  error: 'red',
  fatal: ['bold', 'red'],
};

export function prettyLine(jsonLine: string): string {
  const { ts, level, thread, msg, ...fields } = JSON.parse(jsonLine) as Record<string, unknown>;
  const name = String(level);
  const paint = (style: Style, text: string): string =>
    styleText(style, text, { validateStream: false });
  const head = [
    paint('gray', String(ts).slice(11, 23)),
    paint(levelStyles[name] ?? 'gray', name.toUpperCase().padEnd(5)),
    paint('cyan', String(thread)),
    String(msg ?? ''),
  ];
  const pairs = Object.entries(fields).map(([key, value]) => `${paint('gray', `${key}=`)}${value}`);
  return `${head.join(' ')}${pairs.length > 0 ? `  ${pairs.join(' ')}` : ''}\n`;
}
