/** The acceptance battery: what is done to the gateway and what must come of it, by id. */

export interface BatteryRow {
  readonly id: string;
  readonly injection: string;
  readonly expected: string;
  /** Where the tests do less than that: what they do. */
  readonly shownAs: string;
}

const rows: readonly (readonly [
  id: string,
  injection: string,
  expected: string,
  shownAs?: string,
])[] = [
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
  ['T05', 'SIGCONT', 'half-open probe, slow start; no > 2x fair share in first 10 s'],
  ['T06', 'RST before the head, every third request', 'client errors 0, within the retry budget'],
  ['T07', 'FIN before the head, on fresh and reused sockets', 'client errors 0'],
  ['T08', 'RST or FIN mid-event; chunked, length, close-delimited', 'silent successes 0'],
  ['T09', '200 and no byte', 'first-token clock, then another replica'],
  ['T10', 'a byte a second', 'ended by the token clock'],
  ['T11', 'event streams split at every byte', 'the same stream at every offset'],
  ['T12', 'malformed event streams', 'legal ones pass, others are flagged, none crashes'],
  [
    'T13',
    'an event of 20 MB, an endless line',
    'cut with an error, RSS delta < 2x cap',
    'RSS delta at its peak, median of 20 events in a gateway at work',
  ],
  ['T14', '429 and 503 with retry-after', 'another first, no hammering, breaker unmoved'],
  [
    'T15',
    '500 for 30 % of the requests of a replica',
    'breaker trips, others serve; errors < 1 %, ejected <= 50 % of fleet',
  ],
  [
    'T16',
    'all replicas down',
    'fast 503 with retry-after, p99 < 50 ms; recover <= 2 s after the first is back',
    'timed once the probes have seen it, 5 s by default; until then 502 or 503 in about half a second',
  ],
  ['T17', 'a replica restarts 20 times in 2 min', 'state changes <= 2 per restart'],
  ['T18', '/health is 200, completions hang', 'out by the token probe'],
  ['T19', '/health times out, tokens flow', 'not ejected'],
  ['T20', 'the client leaves, in every state', 'replica told, slot free'],
  [
    'T21',
    '500 clients abort at random times, 10 min',
    'no leak: gauges 0, descriptors at baseline',
    '40 clients, some seconds (10 minutes with --full), and the swarm',
  ],
  [
    'T22',
    '200 clients stop reading, big output',
    'upstream paused, client cut <= 30 s, RSS < 64 KB per stream + ring',
    '96 clients, whose sockets take a gigabyte of the kernel; RSS < 128 KiB per stream + 40 MiB',
  ],
  [
    'T23',
    'a client reads slowly',
    "its stream intact; others' p99 ITL +< 10 %",
    'p99 within 2 times in pairs of rounds, and printed: the machine alone makes more than 10 %',
  ],
  ['T33', 'a forwarder dies at 5 stages in 4 ways', 'others live, back within 1 s'],
  ['T34', 'the scheduler dies at 3 stages in 4 ways', 'queued requests lost 0, back within 1 s'],
  ['T35', 'a throw in a handler, in onAborted, in a timer', 'the process lives'],
  [
    'T36',
    'SIGKILL, acceptor OOM, acceptor terminate under load; one of two on a port',
    'back <= 2 s; with two, errors <= in-flight share',
    'counted from the injection; on a busy machine within three times its first start',
  ],
  ['T37', 'the scheduler stalls for 200 ms and 3 s', 'no loss; not ready meanwhile; bounds kept'],
  [
    'T38',
    'request ring full, response ring full',
    '503 with retry-after; replicas held back; lost 0',
  ],
  ['T39', 'every 10th wake-up lost', 'added p99 <= 60 ms, no hang'],
  [
    'T40',
    '4x the load for 60 s',
    'goodput >= 90 % of max, rest 429 / 503; p99 of admitted <= 2x',
    'all places taken and the queue full; the figures are in scheduling-live.md',
  ],
  ['T41', 'queue time over', '503 before a replica has seen it'],
  [
    'T42',
    'one tenant floods at 10x',
    'others keep share, p99 +< 20 %',
    'the order of service; the figures are in scheduling-live.md',
  ],
  ['T43', 'hedging on, one slow replica', 'p99 falls, at most 2 % more requests, billed once'],
  ['T44', 'SIGTERM under load', 'not ready at once, streams finish, lost 0, exit 0'],
  ['T45', 'second SIGTERM, drain limit', 'error events, gone within 1 s'],
  ['T46', 'drain, undrain, remove, add under load', 'lost 0'],
  ['T47', 'good and broken config files', 'the last good one stays, lost 0, counted'],
  [
    'T48',
    'the store of shared limits down, hung, 500 ms slow, without writes, and back',
    'added latency < 60 ms',
  ],
  [
    'T49',
    'log to a full device, a closed or a deaf pipe',
    'service unaffected, drops counted, p99 +< 5 %',
    'p99 within 1.5 times in pairs of rounds, and printed: two good logs differ by more than 5 %',
  ],
  ['T51', 'forbidden addresses, redirects, media URLs', 'refused: connections 0'],
  ['T52', 'secrets in headers, bodies, URLs, crashes', 'found in logs, metrics and errors: 0'],
];

export const battery: readonly BatteryRow[] = rows.map(
  ([id, injection, expected, shownAs = '']) => ({ id, injection, expected, shownAs }),
);
