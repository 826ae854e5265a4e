/** Renders the catalogue as `docs/errors.md`. Runs in scripts only; a test compares the page. */
import { errorList, reservedNumbers } from './catalogue.ts';

const head = `# Errors

Generated from \`src/errors/catalogue.ts\` by \`npm run docs\`. Bodies are
\`{"error":{"message","type","param","code"}}\`; \`/v1/messages\` answers in Anthropic's shape, with 529
in place of 503. After the first byte of a stream the same object is its last event, the connection
closes, and there is no \`[DONE]\`.

*Flag* is the response flag of the access log, in Envoy's vocabulary. *Retry* says whether the gateway
itself may ask another replica: never, or before the first byte has reached the client.
*Retry-after* is the default in seconds, sent as \`retry-after\` and \`retry-after-ms\`.

| # | name | status | type | code | source | flag | retry | retry-after | meaning |
|---|---|---|---|---|---|---|---|---|---|
`;

/** The reference page of all errors. */
export function errorsMarkdown(): string {
  const lines = errorList.map((entry) =>
    [
      '',
      entry.number,
      entry.name,
      entry.status,
      `\`${entry.type}\``,
      `\`${entry.code}\``,
      entry.source,
      entry.flag,
      entry.retry === 'never' ? 'never' : 'before the first byte',
      entry.retryAfterS === 0 ? '' : entry.retryAfterS,
      `${entry.message} ${entry.hint}`,
      '',
    ]
      .join(' | ')
      .trim(),
  );
  return `${head}${lines.join('\n')}\n\nReserved numbers: ${reservedNumbers.join(', ')}.\n`;
}
