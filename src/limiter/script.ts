/**
 * The buckets of shared limits, as one Lua script that Redis runs atomically.
 *
 * A key for each bucket: GCRA (ITU-T I.371, lib/gcra.ts), its time in microseconds of the server's clock and the
 * rate that it is by; no key is a full bucket. All keys of a call are of one tenant and in one slot of a cluster
 * by their hash tag. Numbers go out as text, because Redis cuts fractions off.
 *
 * Six arguments for each key:
 *   rate    units a microsecond
 *   burst   units of a full bucket
 *   charge  units that are taken already, whatever is left
 *   refund  units that come back
 *   need    units without which none are wanted
 *   want    units that would be taken, if there are so many
 * Two values for each key come back: units given beyond the charge, and microseconds until it is full.
 */
export const bucketScript = `
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local out = {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 6
  local rate, burst = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local charge, refund = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local need, want = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local before, by = string.match(redis.call('GET', key) or '', '^(%S+) ?(%S*)$')
  before = math.max(tonumber(before) or 0, now)
  before = now + (before - now) * (tonumber(by) or rate) / rate
  local tat = math.max(before + (charge - refund) / rate, now)
  local left = burst - (tat - now) * rate
  local given = 0
  if left > 0 and left >= need - 0.000001 then given = math.min(want, left) end
  tat = tat + given / rate
  local full = tat - now
  if full <= 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, string.format('%.3f %.17g', tat, rate), 'PX', math.ceil(full / 1000) + 1)
  end
  out[2 * i - 1] = string.format('%.17g', given)
  out[2 * i] = string.format('%.3f', full)
end
return out
`;

/** Arguments of one key. */
export interface BucketCall {
  readonly key: string;
  readonly rate: number;
  readonly burst: number;
  readonly charge: number;
  readonly refund: number;
  readonly need: number;
  readonly want: number;
}

export interface BucketAnswer {
  readonly given: number;
  readonly fullInUs: number;
}
