/**
 * Real proxies in front of a gateway, each a process of its own: nginx and HAProxy, as lenient as
 * they can be told to be, with few connections to the gateway that all their clients share.
 *
 * Each request that the proxy forwards carries an x-request-id of the proxy, and the answer comes back
 * with the same id as x-front-id: bytes that the proxy took for a body never carry one.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './free-port.ts';
import { eventually } from './until.ts';

export const frontIdPrefix = 'front-';

interface Ports {
  readonly front: number;
  readonly gateway: number;
}

export interface FrontKind {
  readonly name: string;
  config(ports: Ports, folder: string): string;
  args(configFile: string, folder: string): string[];
}

export interface FrontProxy {
  readonly port: number;
  close(): Promise<void>;
}

const nginx: FrontKind = {
  name: 'nginx',
  config: ({ front, gateway }, folder) => `
daemon off;
master_process off;
pid ${folder}/pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join('\n  ')}
  underscores_in_headers on;
  ignore_invalid_headers off;
  upstream gateway {
    server 127.0.0.1:${gateway};
    keepalive 2;
  }
  server {
    listen 127.0.0.1:${front};
    location / {
      proxy_pass http://gateway;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Request-Id "${frontIdPrefix}$request_id";
      add_header X-Front-Id "${frontIdPrefix}$request_id" always;
      proxy_request_buffering off;
      proxy_next_upstream off;
    }
  }
}
`,
  args: (configFile, folder) => ['-p', folder, '-e', 'stderr', '-c', configFile],
};

const haproxy: FrontKind = {
  name: 'haproxy',
  config: ({ front, gateway }) => `
global
  nbthread 1
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend clients
  bind 127.0.0.1:${front}
  option accept-invalid-http-request
  unique-id-format ${frontIdPrefix}%[uuid()]
  http-request set-header X-Request-Id %[unique-id]
  http-response set-header X-Front-Id %[unique-id]
  default_backend gateway
backend gateway
  http-reuse always
  retries 0
  server gateway 127.0.0.1:${gateway} pool-max-conn 2
`,
  args: (configFile) => ['-db', '-f', configFile],
};

export const frontKinds: readonly FrontKind[] = [nginx, haproxy];

/** Path of the program on this machine, undefined when it is not installed. */
export function frontProgram({ name }: FrontKind): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin'];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

/** Resolves once the proxy accepts connections. */
export async function frontProxy(kind: FrontKind, gatewayPort: number): Promise<FrontProxy> {
  const program = frontProgram(kind);
  if (program === undefined) throw new Error(`${kind.name} is not installed`);
  const folder = mkdtempSync(join(tmpdir(), 'sluice-front-'));
  const configFile = join(folder, 'config');
  const port = await freePort();
  writeFileSync(configFile, kind.config({ front: port, gateway: gatewayPort }, folder));
  const child = spawn(program, kind.args(configFile, folder), {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr?.on('data', (data: Buffer) => {
    said = (said + data.toString()).slice(-4000);
  });
  const exited = once(child, 'exit');
  const close = async (): Promise<void> => {
    if (isRunning(child)) child.kill('SIGKILL');
    await exited;
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await eventually(`${kind.name} listens`, () => !isRunning(child) || accepts(port));
    if (!isRunning(child)) throw new Error(`${kind.name} ended: ${said}`);
  } catch (error) {
    await close();
    throw error;
  }
  return { port, close };
}

function isRunning({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode === null && signalCode === null;
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('error', () => resolve(false));
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}
