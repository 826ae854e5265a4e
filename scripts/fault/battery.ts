/** The acceptance battery: what is done to the gateway and what must come of it, by id. */

export interface BatteryRow {
  readonly id: string;
  readonly injection: string;
  readonly expected: string;
}

const rows: readonly (readonly [id: string, injection: string, expected: string])[] = [
  [
    'T01',
    'SIGKILL of a replica before the heads of 50 requests',
    'all answered elsewhere: lost 0, p99 of the added time < 500 ms',
  ],
  ['T02', 'SIGKILL mid-stream, continuation on', 'lost, doubled and missing tokens 0, usage exact'],
  [
    'T03',
    'the same, continuation off; cuts in every framing',
    'error event, no [DONE]: silent ends 0',
  ],
  ['T04', 'SIGSTOP of a replica', 'told within the stall limit and 1 s; new requests avoid it'],
  ['T05', 'SIGCONT', 'one probe, slow start: never above twice a fair share'],
  ['T06', 'RST before the head, every third request', 'client errors 0, within the retry budget'],
  ['T07', 'FIN before the head, on fresh and reused sockets', 'client errors 0'],
  ['T08', 'RST or FIN mid-event; chunked, length, close-delimited', 'silent successes 0'],
  ['T09', '200 and no byte', 'first-token clock, then another replica'],
  ['T10', 'a byte a second', 'ended by the token clock'],
  ['T11', 'event streams split at every byte', 'the same stream at every offset'],
  ['T12', 'malformed event streams', 'legal ones pass, others are flagged, none crashes'],
  ['T13', 'an event of 20 MB, an endless line', 'cut with an error, memory flat'],
  ['T14', '429 and 503 with retry-after', 'another first, no hammering, breaker unmoved'],
  ['T15', '500 from one replica', 'out, clients unaware, at most half of the fleet out'],
  [
    'T16',
    'all replicas down',
    '503 with retry-after, p99 < 50 ms; served 2 s after the first is back',
  ],
  ['T17', 'a replica that restarts again and again', 'at most two state changes a restart'],
  ['T18', '/health is 200, completions hang', 'out by the token probe'],
  ['T19', '/health times out, tokens flow', 'not ejected'],
  ['T20', 'the client leaves, in every state', 'replica told, slot free'],
  ['T21', 'clients that leave at random', 'nothing left over'],
  ['T22', 'clients that stop reading', 'replica held back, cut within 30 s, memory flat'],
  ['T23', 'a client at 1 KB/s', 'its stream whole, others unharmed'],
  ['T33', 'a forwarder dies at 5 stages in 4 ways', 'others live, back within 1 s'],
  ['T34', 'the scheduler dies at 3 stages in 4 ways', 'queued requests lost 0, back within 1 s'],
  ['T35', 'a throw in a handler, in onAborted, in a timer', 'the process lives'],
  ['T36', 'SIGKILL of the gateway; of one of two on a port', 'back within 2 s; the other serves'],
  ['T37', 'the scheduler stalls for 200 ms and 3 s', 'no loss; not ready meanwhile; bounds kept'],
  [
    'T38',
    'request ring full, response ring full',
    '503 with retry-after; replicas held back; lost 0',
  ],
  ['T39', 'every 10th wake-up lost', 'added p99 <= 60 ms, no hang'],
  ['T40', 'four times the load', 'the rest is refused without a replica'],
  ['T41', 'queue time over', '503 before a replica has seen it'],
  ['T42', 'one tenant floods', 'others keep their share'],
  ['T43', 'hedging on, one slow replica', 'p99 falls, at most 2 % more requests, billed once'],
  ['T44', 'SIGTERM under load', 'not ready at once, streams finish, lost 0, exit 0'],
  ['T45', 'second SIGTERM, drain limit', 'error events, gone within 1 s'],
  ['T46', 'drain, undrain, remove, add under load', 'lost 0'],
  ['T47', 'good and broken config files', 'the last good one stays, lost 0, counted'],
  ['T49', 'log to a full device, a closed or a deaf pipe', 'service unharmed, drops counted'],
  ['T51', 'forbidden addresses, redirects, media URLs', 'refused: connections 0'],
  ['T52', 'secrets in headers, bodies, URLs, crashes', 'found in logs, metrics and errors: 0'],
];

export const battery: readonly BatteryRow[] = rows.map(([id, injection, expected]) => ({
  ...{ id, injection, expected },
}));
