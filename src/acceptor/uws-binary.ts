/**
 * Loads uWebSockets.js, but only a binary whose sha256 is recorded here.
 *
 * Runs on the main thread (to resolve `engine: auto`) and on each acceptor; blocks for one read of the
 * file. The native binary is the one part of the edge that no lockfile audit can read, so what runs
 * is exactly what was tested: an unknown file is refused with a message, never loaded.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** uws-pack 20.0.8, by platform, architecture and ABI (127 is Node 22). */
export const recordedBinaries: Readonly<Record<string, string>> = Object.freeze({
  linux_x64_127: '8cabc918bbf9a07323e54f89a33882491080b2eb35df0607f473ccdb1f3c31af',
  linux_arm64_127: 'd4c4f8b2c28c5f6544b49e36d91b0beee238a5b90a07904a947f77061c8b814d',
  darwin_arm64_127: 'abbeea53d48e21c01808203e9f9835728f2cea720d2e5b154837ee3045b513be',
  darwin_x64_127: 'afd992dc1ca1e33cdc7ce0c72a60baf236e590a257fcecbbbce7bc1a35451387',
});

export type UwsCheck = { readonly ok: true } | { readonly ok: false; readonly reason: string };

/** Whether the binary for this machine is there and is the recorded one. */
export function checkUwsBinary(
  recorded: Readonly<Record<string, string>> = recordedBinaries,
): UwsCheck {
  const name = `${process.platform}_${process.arch}_${process.versions.modules}`;
  const expected = recorded[name];
  if (expected === undefined) return refused(`no uWebSockets.js binary is recorded for ${name}`);
  let actual: string;
  try {
    const index = fileURLToPath(import.meta.resolve('uWebSockets.js'));
    const file = new URL(`bin/uws_${name}.node`, `file://${index}`);
    actual = createHash('sha256').update(readFileSync(file)).digest('hex');
  } catch {
    return refused('uWebSockets.js is not installed');
  }
  if (actual === expected) return { ok: true };
  return refused(`the uWebSockets.js binary ${name} has sha256 ${actual}, recorded is ${expected}`);
}

const refused = (reason: string): UwsCheck => ({ ok: false, reason });

/** Measured: with `ca_file_name` it asks for a certificate and serves a client that has none. */
export const noClientCertificates =
  'listen.tls.ca needs engine node: uWebSockets.js does not enforce it';

/** Bytes of request headers that uWS takes; its own default is 4 KiB. */
const headerBytesMax = '16384';

/**
 * The engine to run. `auto` falls back to `node` and says why; `uws` does not fall back.
 * Call on the main thread before an acceptor starts: uWS reads its header limit from the environment
 * of the process, which a worker cannot change.
 */
export function resolveEngine(
  wanted: 'auto' | 'uws' | 'node',
  hasClientCa = false,
  check: UwsCheck = hasClientCa ? refused(noClientCertificates) : checkUwsBinary(),
): { readonly engine: 'uws' | 'node'; readonly fallback: string } | { readonly refused: string } {
  if (wanted === 'node') return { engine: 'node', fallback: '' };
  if (check.ok) {
    process.env.UWS_HTTP_MAX_HEADERS_SIZE = headerBytesMax;
    return { engine: 'uws', fallback: '' };
  }
  if (wanted === 'uws') return { refused: check.reason };
  return { engine: 'node', fallback: `listen.engine auto runs as node: ${check.reason}` };
}
