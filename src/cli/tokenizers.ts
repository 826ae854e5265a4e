/**
 * Adds to a loaded config what is wrong with the files of its tokenizers. Main thread; they are loaded in
 * a thread that ends afterwards, because a vocabulary takes more memory than everything else of a command.
 */
import type { LoadResult } from '../config/load.ts';

export async function withTokenizers(result: LoadResult): Promise<LoadResult> {
  if (!result.ok || result.config.models.every((model) => model.tokenizer === undefined)) {
    return result;
  }
  const { tokenizerProblems } = await import('../gateway/tokenizer-pool.ts');
  const found = await tokenizerProblems(result.config);
  if (found.length === 0) return result;
  const problems = found.map(({ model, message }) =>
    result.problemAt(['models', model, 'tokenizer'], message),
  );
  return { ok: false, problems };
}
