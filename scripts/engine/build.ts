/**
 * Builds a real llama.cpp server in a cache folder outside of version control.
 *
 * The package node-llama-cpp brings llama.cpp's source and its computing libraries, ready made; only
 * the HTTP server around them is compiled: about four CPU minutes, once. A build that was broken off
 * goes on where it stopped. Needs Linux on x64 or arm64, and compilers, which root on Debian gets.
 */
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import type { Machine } from '../test/servers.ts';
import { writeTinyModel } from './gguf.ts';

export interface Engine {
  readonly server: string;
  /** A model of random weights that answers quickly. */
  readonly model: string;
}

export interface BuildOptions {
  readonly folder: string;
  readonly machine: Machine;
  readonly say: (line: string) => void;
  /** The whole build, downloads included, must be done in this time. */
  readonly limitMs: number;
}

const version = '3.22.1';
/** What the libraries in that version are called. */
const libraries = [
  'libllama-common.so',
  'libllama.v0.5.0.so',
  'libggml.v0.5.0.so',
  'libggml-base.so',
];
const vocabularyPath = 'models/ggml-vocab-llama-spm.gguf';
const tools = [
  { command: 'git', debianPackage: 'git' },
  { command: 'cmake', debianPackage: 'cmake' },
  { command: 'ninja', debianPackage: 'ninja-build' },
  { command: 'g++', debianPackage: 'g++' },
];
const cmakeFlags = [
  '-DCMAKE_BUILD_TYPE=Release',
  '-DCMAKE_CXX_FLAGS_RELEASE=-O1',
  '-DCMAKE_OPTIMIZE_DEPENDENCIES=ON',
  '-DBUILD_SHARED_LIBS=OFF',
  '-DLLAMA_BUILD_TESTS=OFF',
  '-DLLAMA_BUILD_APP=OFF',
  '-DLLAMA_USE_PREBUILT_UI=OFF',
  '-DLLAMA_OPENSSL=OFF',
];
const targets = [
  'mtmd',
  'server-context',
  'llama-server-impl',
  'cpp-httplib',
  'llama-ui',
  'vendor-hash',
];
const includes = ['.', 'vendor', 'common', 'include', 'ggml/include', 'tools/server', 'tools/mtmd'];
const archives = [
  'tools/server/libllama-server-impl.a',
  'tools/server/libserver-context.a',
  'tools/mtmd/libmtmd.a',
  'tools/ui/libllama-ui.a',
  'vendor/cpp-httplib/libcpp-httplib.a',
  'vendor/hash/libvendor-hash.a',
];
/** A line at least this often, so that a build is not taken for a hang. */
const progressEveryMs = 15_000;

/** The engine, built when the cache has none of this version. Throws when it cannot be. */
export async function buildEngine(options: BuildOptions): Promise<Engine> {
  const { folder, machine, say } = options;
  const server = join(folder, 'bin/llama-server');
  const model = join(folder, 'tiny.gguf');
  const vocabulary = join(folder, 'vocabulary.gguf');
  const stamp = join(folder, 'version');
  const isBuilt = [server, vocabulary].every((path) => existsSync(path));
  if (!isBuilt || !existsSync(stamp) || readFileSync(stamp, 'utf8') !== version) {
    prepareTools(machine, say);
    mkdirSync(folder, { recursive: true });
    await new Build(options).run(server, vocabulary);
    writeFileSync(stamp, version);
  }
  writeTinyModel(vocabulary, model);
  return { server, model };
}

function prepareTools(machine: Machine, say: (line: string) => void): void {
  const missing = tools.filter(({ command }) => !machine.has(command));
  if (missing.length > 0 && machine.canInstall) {
    const packages = missing.map(({ debianPackage }) => debianPackage);
    say(`installing ${packages.join(', ')} for the build`);
    const install = ['install', '-y', '-q', '--no-install-recommends', ...packages];
    if (!machine.aptGet(install) && machine.aptGet(['update', '-q'])) machine.aptGet(install);
  }
  const absent = tools.filter(({ command }) => !machine.has(command));
  if (absent.length === 0) return;
  throw new Error(`the build needs ${absent.map(({ command }) => command).join(', ')}`);
}

class Build {
  readonly #options: BuildOptions;
  readonly #deadline: number;
  readonly #packages: string;
  readonly #source: string;

  constructor(options: BuildOptions) {
    this.#options = options;
    this.#deadline = performance.now() + options.limitMs;
    this.#packages = join(options.folder, 'packages');
    this.#source = join(options.folder, 'llama.cpp');
  }

  async run(server: string, vocabulary: string): Promise<void> {
    const { folder, say } = this.#options;
    const platform = `linux-${process.arch}`;
    const libraryFolder = join(
      this.#packages,
      `node_modules/@node-llama-cpp/${platform}/bins/${platform}`,
    );
    say(`engine: fetching node-llama-cpp ${version}`);
    await this.#install(platform);
    await this.#checkOut();
    say('engine: configuring');
    await this.#do('cmake', ['-S', '.', '-B', 'build', '-G', 'Ninja', ...cmakeFlags]);
    say('engine: compiling');
    await this.#do('ninja', ['-C', 'build', '-j', `${availableParallelism()}`, ...targets]);
    const bin = join(folder, 'bin');
    mkdirSync(bin, { recursive: true });
    linkComputeLibraries(libraryFolder, bin);
    say('engine: linking');
    const unfinished = `${server}.unfinished`;
    await this.#do('g++', linkFlags(libraryFolder, bin, unfinished));
    renameSync(join(this.#source, vocabularyPath), vocabulary);
    renameSync(unfinished, server);
    rmSync(this.#source, { recursive: true }); // half a gigabyte nobody needs again
    say('engine: built');
  }

  async #install(platform: string): Promise<void> {
    if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch)) {
      throw new Error('the engine is built on Linux only, on x64 or arm64');
    }
    mkdirSync(this.#packages, { recursive: true });
    const dependencies = {
      'node-llama-cpp': version,
      [`@node-llama-cpp/${platform}`]: version,
    };
    const manifest = { name: 'sluice-engine', private: true, dependencies };
    writeFileSync(join(this.#packages, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    const flags = ['--omit=optional', '--ignore-scripts', '--no-audit', '--no-fund'];
    await this.#do('npm', ['install', ...flags], this.#packages);
  }

  /** The package carries the source as a git bundle. */
  async #checkOut(): Promise<void> {
    if (existsSync(join(this.#source, 'CMakeLists.txt'))) return;
    rmSync(this.#source, { recursive: true, force: true });
    const bundle = join(this.#packages, 'node_modules/node-llama-cpp/llama/gitRelease.bundle');
    await this.#do('git', ['clone', '-q', bundle, this.#source], this.#options.folder);
  }

  /** Runs one command; its output is shown when it fails. */
  #do(command: string, args: readonly string[], cwd = this.#source): Promise<void> {
    const { say } = this.#options;
    const leftMs = Math.max(1, Math.ceil(this.#deadline - performance.now()));
    const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'], timeout: leftMs });
    const lines: string[] = [];
    let told = performance.now();
    const onLine = (line: string): void => {
      lines.push(line);
      if (lines.length > 60) lines.shift();
      const step = /^\[\d+\/\d+\]/.exec(line)?.[0];
      if (step === undefined || performance.now() - told < progressEveryMs) return;
      told = performance.now();
      say(`engine: ${step}`);
    };
    createInterface({ input: child.stdout }).on('line', onLine);
    createInterface({ input: child.stderr }).on('line', onLine);
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => {
        if (code === 0) resolve();
        else reject(new Error(`${command}: ${signal ?? `exit ${code}`}\n${lines.join('\n')}`));
      });
    });
  }
}

/** The engine looks for libraries of its processor's kind beside its own file. */
function linkComputeLibraries(from: string, bin: string): void {
  for (const name of readdirSync(from).filter((file) => /^libggml-cpu.*\.so$/.test(file))) {
    rmSync(join(bin, name), { force: true });
    symlinkSync(relative(bin, join(from, name)), join(bin, name));
  }
}

function linkFlags(libraryFolder: string, bin: string, target: string): string[] {
  return [
    '-O1',
    '-std=c++17',
    ...includes.map((include) => `-I${include}`),
    'tools/server/main.cpp',
    ...archives.map((archive) => `build/${archive}`),
    '-o',
    target,
    `-L${libraryFolder}`,
    ...libraries.map((name) => `-l:${name}`),
    // Relative to the program, so that the checkout may move.
    `-Wl,-rpath,$ORIGIN/${relative(bin, libraryFolder)}`,
    '-lpthread',
    '-ldl',
  ];
}
