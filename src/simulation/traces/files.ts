/**
 * The trace files: names, and the one place of the simulation that reads the disk.
 *
 * The slices lie under test/fixtures/traces, two levels above this folder in src/ and in dist/ alike.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { Workload } from '../workload.ts';
import { readAzure } from './azure.ts';
import { readMooncake } from './mooncake.ts';
import type { TraceName } from './names.ts';
import { readServeGen } from './servegen.ts';
import { readShareGpt } from './sharegpt.ts';

const folderOfTraces = resolve(import.meta.dirname, '../../../test/fixtures/traces');

/** Noon of the published day: every client class is active. */
const serveGenWindowS = 43_200;
/** 920 requests/s of the published service come down to about 20. */
const serveGenRateFactor = 45;
const serveGenSeconds = 600;

export function readTrace(name: TraceName, seed: number, folder = folderOfTraces): Workload {
  const text = (file: string): string => gunzipSync(readFileSync(join(folder, file))).toString();
  switch (name) {
    case 'conversation':
      return readMooncake(text('mooncake_conversation_0-30min.jsonl.gz'), seed);
    case 'azure-code':
      return readAzure(text('azure_llm_2023_code_0-30min.csv.gz'));
    case 'azure-chat':
      return readAzure(text('azure_llm_2023_conv_0-30min.csv.gz'));
    case 'sharegpt':
      return readShareGpt(text('sharegpt_8k_lengths_rows_0-12000.csv.gz'), seed);
    case 'servegen':
      return readServeGen(
        text('servegen_m-small_day1_clients.csv.gz'),
        text('servegen_m-small_day1_lengths.json.gz'),
        {
          windowS: serveGenWindowS,
          seconds: serveGenSeconds,
          rateFactor: serveGenRateFactor,
          seed,
        },
      );
  }
}
